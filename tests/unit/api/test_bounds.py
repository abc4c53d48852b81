"""Bounds of fields in request bodies."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from optiinfra.api.agents import AnalyzeAnswer, Draft, Heartbeat, JudgeAnswer, Register
from optiinfra.api.customers import DiscoveredDeployment, Onboard
from optiinfra.api.parameters import IdleShutdownParameters, SpotMigrationParameters
from optiinfra.api.runtimes import CommandResult, Connect, GoldenAnswer, InventoryReport, MeasureOutput
from optiinfra.api.telemetry import LatencyCount, Sample

AT = {"deployment_id": "dep_1", "replica_id": "r", "timestamp": "2026-11-01T00:00:00Z"}
SAMPLE = AT | {"metric": "throughput", "value": 1.0}
COUNT = AT | {"le": 1.0, "count": 1}
ROLE = {"cloud_provider": "aws", "region": "us-east-1", "iam_role_arn": "arn:aws:iam::111122223333:role/optiinfra"}
AGENT = {"agent_type": "cost", "version": "1", "capabilities": [], "hostname": "h", "base_url": "http://127.0.0.1:8011"}
DEPLOYMENT = {
    "name": "chat",
    "model": "m",
    "provider": "aws",
    "region": "us-east-1",
    "engine_args": {},
    "weights": {},
    "slo": {"p95_latency_ms": 1, "quality": 1},
    "interruptible": True,
    "replicas": [],
}

BAD_TEXTS = ("a" * 201, "nul \0", "surrogate \ud800")
NO_NUMBERS = (float("nan"), float("inf"))
UNBOUNDED = ("a" * 100_001, [0] * 10_001, dict.fromkeys(map(str, range(10_001))), 10**400, -2e18, *NO_NUMBERS)
"""Values that free-form JSON may not have."""
SLO = {"p95_latency_ms": 1.0, "quality": 1.0}
TEXTS = ("name", "model", "provider", "region")
IDS = ("replica_id", "instance_id", "instance_type")
REPLICA = dict.fromkeys(IDS, "x") | {"state": "ready"}
BAD_WEIGHTS = ({"r": 1.1}, {"r": -0.1}, {"r": float("nan")}, {"a" * 201: 1.0})
CONNECT = {"customer_id": "c", "agent_token": "t", "hostname": "h", "version": "1"}
BEAT = {"current_tasks": 0, "load": 0.0}
GOLDEN = {"prompt_id": "p", "turns": 1, "expected": "", "answer": ""}
MEASURED = {"measured_at": "2026-11-01T00:00:00Z", "requests_served": 0, "requests_dropped": 0}
DRAFT = {
    "type": "region_advice",
    "title": "t",
    "explanation": "",
    "risk_level": "low",
    "confidence": 1.0,
    "estimated_savings": 0.0,
    "predicted": {"monthly_cost": 0.0, "p95_latency_ms": None, "quality_score": None},
    "affected_resources": [],
    "deployment_id": None,
    "parameters": {},
    "modelled": {},
    "features": [],
    "similar_outcomes": [],
}
VERDICT = {"agent_type": "performance", "decision": "pass", "reason": "", "observations": 1}
MIGRATION = {
    "deployment": "chat",
    "provider": "aws",
    "region": "us-east-1",
    "instance_type": "g5.xlarge",
    "count": 1,
    "source_instance_ids": ["i"],
    "spot_price": 1.0,
    "ondemand_price": 1.0,
    "interruptions_per_month": 0.0,
}
SHUTDOWN = {
    "provider": "aws",
    "region": "us-east-1",
    "instance_ids": ["i"],
    "idle_since": "2026-11-01T00:00:00Z",
    "hourly_cost": 1.0,
}


def nested(levels: int) -> dict[str, Any]:
    """A dictionary in a dictionary, so often."""
    return {"a": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("shape", "good", "changes"),
    [
        (Sample, SAMPLE, {"value": -1.0}),
        (Sample, SAMPLE, {"value": 1e300}),
        (Sample, SAMPLE, {"value": float("nan")}),
        (Sample, SAMPLE, {"timestamp": "0001-01-01T00:00:00Z"}),
        (Sample, SAMPLE, {"timestamp": "2200-01-01T00:00:00Z"}),
        (Sample, SAMPLE, {"timestamp": "2026-11-01T00:00:00"}),
        (LatencyCount, COUNT, {"le": float("nan")}),
        (LatencyCount, COUNT, {"le": float("inf")}),
        (LatencyCount, COUNT, {"le": 0.0}),
        (LatencyCount, COUNT, {"count": -1}),
        (LatencyCount, COUNT, {"count": 2**63}),
        (LatencyCount, COUNT, {"le": 1e300}),
        *((Sample, SAMPLE, {name: text}) for name in ("deployment_id", "metric", "replica_id") for text in BAD_TEXTS),
        *((LatencyCount, COUNT, {name: text}) for name in ("deployment_id", "replica_id") for text in BAD_TEXTS),
        (Onboard, ROLE, {"region": "us" + "-east" * 1000 + "-1"}),
        (Onboard, ROLE, {"region": "us-east-\N{ARABIC-INDIC DIGIT ONE}"}),
        (Onboard, ROLE, {"iam_role_arn": ROLE["iam_role_arn"] + "a" * 3000}),
        (Onboard, ROLE, {"external_id": "chosen-by-the-caller"}),
        (Register, AGENT, {"base_url": "file:///etc/passwd"}),
        (Register, AGENT, {"base_url": "http://user:password@127.0.0.1"}),
        (Register, AGENT, {"base_url": "http://127.0.0.1/path"}),
        (Register, AGENT, {"base_url": "http://127.0.0.1:99999"}),
        (Register, AGENT, {"base_url": "http://[:::]:80"}),
        (Register, AGENT, {"base_url": "http://xn--a:80"}),
        (Register, AGENT, {"base_url": "http://no host"}),
        (Register, AGENT, {"capabilities": ["judge"] * 101}),
        *((Register, AGENT, {name: text}) for name in ("version", "hostname", "pool") for text in BAD_TEXTS),
        (Heartbeat, BEAT, {"current_tasks": 1_000_001}),
        (Heartbeat, BEAT, {"load": 1e7}),
        (Heartbeat, BEAT, {"load": float("nan")}),
        (DiscoveredDeployment, DEPLOYMENT, {"name": "a" * 3000}),
        *((DiscoveredDeployment, DEPLOYMENT, {name: text}) for name in TEXTS for text in ("", *BAD_TEXTS)),
        (DiscoveredDeployment, DEPLOYMENT, {"engine_args": nested(33)}),
        *((DiscoveredDeployment, DEPLOYMENT, {"engine_args": {"a": value}}) for value in UNBOUNDED),
        (DiscoveredDeployment, DEPLOYMENT, {"engine_args": {"a" * 100_001: 1}}),
        (DiscoveredDeployment, DEPLOYMENT, {"weights": {f"r-{number}": 0.0 for number in range(1_001)}}),
        (DiscoveredDeployment, DEPLOYMENT, {"replicas": [REPLICA] * 1_001}),
        *((DiscoveredDeployment, DEPLOYMENT, {"replicas": [REPLICA | {name: "a" * 201}]}) for name in IDS),
        *((DiscoveredDeployment, DEPLOYMENT, {"replicas": [REPLICA | {name: "\ud800"}]}) for name in IDS),
        *((DiscoveredDeployment, DEPLOYMENT, {"weights": weights}) for weights in BAD_WEIGHTS),
        *((DiscoveredDeployment, DEPLOYMENT, {"slo": SLO | {"p95_latency_ms": value}}) for value in (0.0, *NO_NUMBERS)),
        *((DiscoveredDeployment, DEPLOYMENT, {"slo": SLO | {"quality": value}}) for value in (-0.1, 1.1, *NO_NUMBERS)),
        (InventoryReport, {"deployments": []}, {"deployments": [DEPLOYMENT] * 5_001}),
        *((Connect, CONNECT, {name: text}) for name in CONNECT for text in BAD_TEXTS),
        (CommandResult, {"ok": True}, {"output": nested(33)}),
        *((CommandResult, {"ok": True}, {"output": {"a": value}}) for value in UNBOUNDED),
        (CommandResult, {"ok": True}, {"error": "a" * 10_001}),
        (GoldenAnswer, GOLDEN, {"turns": -1}),
        (GoldenAnswer, GOLDEN, {"answer": "a" * 100_001}),
        (MeasureOutput, MEASURED, {"requests_served": -1}),
        (MeasureOutput, MEASURED, {"requests_dropped": 2**63}),
        (Draft, DRAFT, {"title": "a" * 301}),
        (Draft, DRAFT, {"title": "\ud800"}),
        (Draft, DRAFT, {"explanation": "a" * 100_001}),
        (Draft, DRAFT, {"estimated_savings": 1e19}),
        (Draft, DRAFT, {"affected_resources": ["i"] * 5_001}),
        (Draft, DRAFT, {"features": [0.0] * 101}),
        (Draft, DRAFT, {"modelled": {f"m{number}": 0.0 for number in range(101)}}),
        (Draft, DRAFT, {"similar_outcomes": ["opt"] * 101}),
        (Draft, DRAFT, {"deployment_id": "a" * 201}),
        (AnalyzeAnswer, {"drafts": [], "summary": ""}, {"drafts": [DRAFT] * 10_001}),
        (AnalyzeAnswer, {"drafts": [], "summary": ""}, {"summary": "a" * 100_001}),
        *((JudgeAnswer, VERDICT, {name: float("inf")}) for name in ("estimate", "lower_bound", "upper_bound")),
        (SpotMigrationParameters, MIGRATION, {"count": 0}),
        (SpotMigrationParameters, MIGRATION, {"count": 5_001}),
        (SpotMigrationParameters, MIGRATION, {"spot_price": -1.0}),
        (SpotMigrationParameters, MIGRATION, {"source_instance_ids": ["i"] * 5_001}),
        (IdleShutdownParameters, SHUTDOWN, {"instance_ids": []}),
        (IdleShutdownParameters, SHUTDOWN, {"instance_ids": ["i"] * 5_001}),
        (IdleShutdownParameters, SHUTDOWN, {"hourly_cost": float("inf")}),
    ],
)
def test_field_out_of_bounds_is_refused_by_name(
    shape: type[Any], good: dict[str, Any], changes: dict[str, Any]
) -> None:
    adapter = TypeAdapter(shape)
    adapter.validate_python(good)
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(good | changes)
    assert [error["loc"][0] for error in refused.value.errors()] == list(changes)


def test_text_that_no_store_can_hold_is_replaced_in_results_and_arguments() -> None:
    unstorable = {"nul \0": ["surrogate \ud800"], "n": [1e18, -(10**18), True, None]}
    storable = {"nul \N{REPLACEMENT CHARACTER}": ["surrogate ?"], "n": [1e18, -(10**18), True, None]}
    assert CommandResult.model_validate({"ok": True, "output": unstorable}).output == storable
    assert DiscoveredDeployment.model_validate(DEPLOYMENT | {"engine_args": unstorable}).engine_args == storable


def test_field_within_bounds_is_accepted() -> None:
    assert CommandResult.model_validate({"ok": True, "output": nested(32)}).output == nested(32)
