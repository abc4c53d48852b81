"""Answers of agents: which one an agent may give to a task."""

import json
from typing import Any

import pytest

from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask, JudgeAnswer, JudgeTask, Validation
from optiinfra.api.common import now
from optiinfra.api.customers import Preferences
from optiinfra.orchestrator.agents.answers import valid_answer
from tests.unit.agents.estate import deployment, idle_instance, infrastructure, instances
from tests.unit.agents.tasks import validation_task

SERVING, IDLE = instances(2), idle_instance(monthly_cost=98.0)
TASK = AnalyzeTask(
    task_id="task_1",
    customer_id="cust_1",
    preferences=Preferences(),
    infrastructure=infrastructure([*SERVING, IDLE], deployment(SERVING)),
)
MIGRATION: dict[str, Any] = {
    "type": "spot_migration",
    "title": "t",
    "explanation": "e",
    "risk_level": "low",
    "confidence": 1.0,
    "estimated_savings": 2.0,
    "predicted": {"monthly_cost": 0.0, "p95_latency_ms": 0.0, "quality_score": 1.0},
    "affected_resources": ["dep_1", "i-0", "i-1"],
    "deployment_id": "dep_1",
    "parameters": {
        "deployment": "vllm-prod-1",
        "provider": "aws",
        "region": "us-east-1",
        "instance_type": "p4de.24xlarge",
        "count": 2,
        "source_instance_ids": ["i-0", "i-1"],
        "spot_price": 1.0,
        "ondemand_price": 2.0,
        "interruptions_per_month": 0.1,
    },
    "modelled": {},
    "features": [],
    "similar_outcomes": [],
}
SHUTDOWN = MIGRATION | {
    "type": "idle_shutdown",
    "estimated_savings": 98.0,
    "affected_resources": ["i-9"],
    "deployment_id": None,
    "parameters": {
        "provider": "aws",
        "region": "us-east-1",
        "instance_ids": ["i-9"],
        "idle_since": "2026-01-01T00:00:00Z",
        "hourly_cost": 1.0,
    },
}
ADVICE = SHUTDOWN | {"type": "region_advice", "affected_resources": [], "parameters": {}, "estimated_savings": 0.0}


def migration(**parameters: Any) -> dict[str, Any]:
    return MIGRATION | {"parameters": MIGRATION["parameters"] | parameters}


def analyzed(*drafts: dict[str, Any]) -> AnalyzeAnswer:
    content = json.dumps({"drafts": drafts, "summary": "s"}).encode()
    return valid_answer("cost", TASK, AnalyzeAnswer, content)


def test_drafts_about_the_customers_own_resources_are_valid() -> None:
    assert [each.type for each in analyzed(MIGRATION, SHUTDOWN, ADVICE).drafts] == [
        "spot_migration",
        "idle_shutdown",
        "region_advice",
    ]


@pytest.mark.parametrize(
    ("draft", "error"),
    [
        (MIGRATION | {"type": "scale_out"}, "a cost agent may not recommend scale_out"),
        (MIGRATION | {"deployment_id": "dep_2"}, "no deployment dep_2"),
        (ADVICE | {"affected_resources": ["i-0", "i-8"]}, "no resource i-8"),
        (ADVICE | {"estimated_savings": 0.02}, r"saves \$0.02 .* cost \$0.00"),
        (ADVICE | {"affected_resources": ["dep_1"], "estimated_savings": 2.02}, r"saves \$2.02 .* cost \$2.00"),
        (SHUTDOWN | {"estimated_savings": 98.02}, r"saves \$98.02 .* cost \$98.00"),
        (MIGRATION | {"estimated_savings": 2.02}, r"saves \$2.02 .* cost \$2.00"),
        (migration(count=3), "replaces 2 instances by 3"),
        (migration(instance_type="g5.xlarge"), "replaces i-0 by aws us-east-1 g5.xlarge"),
        (migration(region="us-west-2"), "replaces i-0 by aws us-west-2 "),
        (migration(provider="gcp"), "replaces i-0 by gcp us-east-1 "),
        (migration(source_instance_ids=["i-0", "i-0"]), "names? an instance twice"),
        (
            migration(source_instance_ids=["i-0", "i-9"]) | {"affected_resources": ["dep_1", "i-0", "i-9"]},
            "vllm-prod-1 does not run on i-9",
        ),
        (SHUTDOWN | {"parameters": {}}, "IdleShutdownParameters"),
        (SHUTDOWN | {"deployment_id": "dep_1"}, "for deployment None, but it is for vllm-prod-1"),
        (SHUTDOWN | {"affected_resources": ["i-0"], "estimated_savings": 0.0}, "lack i-9"),
        (MIGRATION | {"deployment_id": None}, "for deployment vllm-prod-1, but it is for None"),
        (MIGRATION | {"affected_resources": ["dep_1", "i-1"]}, "lack i-0"),
    ],
)
def test_draft_about_anything_else_is_invalid(draft: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        analyzed(ADVICE, draft)


def test_no_savings_are_valid_for_resources_of_unknown_cost() -> None:
    estate = infrastructure([*SERVING, idle_instance(monthly_cost=None)], deployment(SERVING))
    task = TASK.model_copy(update={"infrastructure": estate})

    def answer(draft: dict[str, Any]) -> AnalyzeAnswer:
        content = json.dumps({"drafts": [draft], "summary": "s"}).encode()
        return valid_answer("cost", task, AnalyzeAnswer, content)

    with pytest.raises(ValueError, match="cost of its resources is not known"):
        answer(SHUTDOWN | {"estimated_savings": 1.0})
    answer(SHUTDOWN | {"estimated_savings": 0.0})
    answer(MIGRATION)  # the cost of its own resources is known


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["estimated_savings", "confidence"])
def test_figure_that_is_no_number_is_invalid(field: str, figure: str) -> None:
    content = json.dumps({"drafts": [ADVICE | {field: "FIGURE"}], "summary": "s"}).replace('"FIGURE"', figure)
    with pytest.raises(ValueError, match=field):
        valid_answer("cost", TASK, AnalyzeAnswer, content.encode())


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"<html>", b'{"drafts": []}', b'{"summary":' + b"[" * 100_000]
)
def test_content_that_is_no_analysis_is_invalid(content: bytes) -> None:
    with pytest.raises(ValueError, match="AnalyzeAnswer"):
        valid_answer("cost", TASK, AnalyzeAnswer, content)


def test_validation_is_valid_only_from_an_agent_of_the_type_that_was_asked() -> None:
    content = b'{"agent_type": "performance", "approved": true, "reason": "r", "baseline_quality": 1.0}'
    task = validation_task("spot_migration")
    assert valid_answer("performance", task, Validation, content).approved
    with pytest.raises(ValueError, match="signed by the performance agent, but the application agent"):
        valid_answer("application", task, Validation, content)


@pytest.mark.parametrize(
    ("decision", "observations", "valid"),
    [("continue", 0, True), ("pass", 1, True), ("fail", 1, True), ("pass", 0, False), ("fail", 0, False)],
)
def test_verdict_is_valid_only_with_an_observation(decision: str, observations: int, valid: bool) -> None:
    task = JudgeTask(
        task_id="task_2",
        customer_id="cust_1",
        deployment_id="dep_1",
        stage="canary",
        since=now(),
        replica_ids=["r-i-0"],
        slo_p95_latency_ms=1.0,
        slo_quality=0.9,
        baseline_quality=0.9,
        look=1,
    )
    answer = {"agent_type": "performance", "decision": decision, "reason": "r", "observations": observations}
    content = json.dumps(answer).encode()
    if valid:
        assert valid_answer("performance", task, JudgeAnswer, content).decision == decision
    else:
        with pytest.raises(ValueError, match="without any observation"):
            valid_answer("performance", task, JudgeAnswer, content)
