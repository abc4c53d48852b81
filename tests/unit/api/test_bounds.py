"""Bounds of fields in request bodies."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from optiinfra.api.agents import Register
from optiinfra.api.customers import DiscoveredDeployment, Onboard
from optiinfra.api.runtimes import CommandResult
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
        (DiscoveredDeployment, DEPLOYMENT, {"name": "a" * 3000}),
        (DiscoveredDeployment, DEPLOYMENT, {"engine_args": nested(33)}),
        (CommandResult, {"ok": True}, {"output": nested(33)}),
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


def test_field_within_bounds_is_accepted() -> None:
    assert CommandResult.model_validate({"ok": True, "output": nested(32)}).output == nested(32)
