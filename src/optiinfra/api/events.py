"""A customer's events, as a list and as a WebSocket stream."""

from typing import Any, Literal

from optiinfra.api.common import Moment, Wire

SUBPROTOCOL = "optiinfra.v1"
"""The WebSocket subprotocol of the event stream, which the orchestrator selects."""


def bearer_subprotocol(token: str) -> str:
    """The second subprotocol that a client offers: it carries the token, because browsers cannot set headers."""
    return f"bearer.{token}"


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


class LatestEvent(Wire):
    """The number of a customer's latest event, 0 before the first."""

    seq: int


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
