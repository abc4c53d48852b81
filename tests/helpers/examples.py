"""Complete example objects with unremarkable values; tests change what matters to them."""

from datetime import timedelta
from typing import Any

from optiinfra.api.agents import Prediction, Validation
from optiinfra.api.common import now
from optiinfra.api.recommendations import Recommendation


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
