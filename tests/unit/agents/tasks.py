"""Validation tasks as the orchestrator hands them to agents."""

from typing import Any

from optiinfra.api.agents import Draft, Prediction, ValidateTask
from optiinfra.api.customers import Instance
from optiinfra.api.parameters import IdleShutdownParameters
from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.domain.recommendation import RecommendationType
from tests.unit.agents.estate import NOW, deployment, infrastructure, instances


def validation_task(
    recommendation_type: RecommendationType,
    parameters: dict[str, Any] | None = None,
    *,
    deployment_id: str | None = None,
    golden_answers: list[GoldenAnswer] | None = None,
    estate: Any = None,
) -> ValidateTask:
    """Validate a draft of that type; the estate is by default one deployment on two instances."""
    draft = Draft(
        type=recommendation_type,
        title="t",
        explanation="e",
        risk_level="low",
        confidence=0.5,
        estimated_savings=1,
        predicted=Prediction(monthly_cost=1, p95_latency_ms=1, quality_score=None),
        affected_resources=[],
        deployment_id=deployment_id,
        parameters=parameters or {},
        modelled={},
        features=[],
        similar_outcomes=[],
    )
    return ValidateTask(
        task_id="t1",
        customer_id="c",
        draft=draft,
        infrastructure=estate or infrastructure(instances(), deployment(instances())),
        golden_answers=golden_answers or [],
    )


def idle_shutdown_task(*idle: Instance, engine_state: str | None = None) -> ValidateTask:
    """Validate the shutdown of these instances; with `engine_state`, the first one hosts an engine in that state."""
    owned = instances()
    serving = deployment(owned)
    if engine_state is not None:
        hosted = deployment([idle[0]]).engines[0].model_copy(update={"state": engine_state})
        serving = serving.model_copy(update={"engines": [*serving.engines, hosted]})
    parameters = IdleShutdownParameters(
        provider="aws",
        region="us-east-1",
        instance_ids=[instance.instance_id for instance in idle],
        idle_since=NOW,
        hourly_cost=10.0,
    )
    estate = infrastructure([*owned, *idle], serving)
    return validation_task("idle_shutdown", parameters.model_dump(mode="json"), estate=estate)
