"""What happened to a customer, in order."""

from typing import Any, Literal

from optiinfra.api.common import Moment, Wire

EventType = Literal[
    "customer_onboarded",
    "infrastructure_discovered",
    "analysis_started",
    "analysis_completed",
    "recommendation_created",
    "recommendation_validated",
    "recommendation_approved",
    "recommendation_rejected",
    "conflict_detected",
    "conflict_resolved",
    "resolution_executed",
    "optimization_started",
    "step_started",
    "step_completed",
    "step_failed",
    "optimization_completed",
    "optimization_rolled_back",
    "outcome_stored",
    "quality_degraded",
    "agent_unhealthy",
]


class Event(Wire):
    """One event; `seq` counts up by one within a customer. The last four are filled while an optimization runs."""

    id: str
    seq: int
    event_type: EventType
    source: str
    agent_type: str | None
    payload: dict[str, Any]
    created_at: Moment
    optimization_id: str | None = None
    step: str | None = None
    status: str | None = None
    progress: float | None = None
