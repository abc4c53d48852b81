"""Complete example objects with unremarkable values; tests change what matters to them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from optiinfra.api.agents import Prediction, Validation
from optiinfra.api.common import now
from optiinfra.api.recommendations import Optimization, Recommendation, Result, Step
from optiinfra.domain.optimization import STEPS

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
"""The start of the example optimization."""
SPOT_MIGRATION = STEPS["spot_migration"]


def recommendation(*validations: Validation, **changes: Any) -> Recommendation:
    """A pending recommendation of the cost agent with these validations."""
    return Recommendation(
        id="rec_1",
        agent_type="cost",
        type="spot_migration",
        title="t",
        explanation="e",
        risk_level="low",
        confidence=0.7,
        estimated_savings=100.0,
        predicted=Prediction(monthly_cost=1.0, p95_latency_ms=None, quality_score=None),
        affected_resources=[],
        parameters={},
        validations=list(validations),
        similar_outcomes=[],
        status="pending",
        created_at=now(),
        expires_at=now() + timedelta(days=1),
    ).model_copy(update=changes)


def steps(*names: str, **changes: Any) -> list[Step]:
    """Completed steps that start one second apart and do not overlap; the changes apply to each."""
    return [
        Step(
            name=name,
            status="completed",
            attempt=1,
            started_at=STARTED + timedelta(seconds=number),
            completed_at=STARTED + timedelta(seconds=number, milliseconds=900),
            detail={},
        ).model_copy(update=changes)
        for number, name in enumerate(names)
    ]


def optimization(**changes: Any) -> Optimization:
    """A completed spot migration with all its steps."""
    return Optimization(
        id="opt_1",
        recommendation_id="rec_1",
        type="spot_migration",
        status="completed",
        started_at=STARTED,
        completed_at=STARTED + timedelta(seconds=9),
        execution_steps=steps(*SPOT_MIGRATION),
        rollback_steps=[],
        result=Result(success=True, predicted_savings=1.0, actual_savings=1.0),
    ).model_copy(update=changes)
