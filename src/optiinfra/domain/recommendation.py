"""Recommendations: types, risk, status, and the agents that must validate them."""

from collections.abc import Collection
from enum import StrEnum
from typing import Literal

AgentType = Literal["cost", "performance", "resource", "application"]
RecommendationType = Literal[
    "spot_migration",
    "idle_shutdown",
    "commitment",
    "region_advice",
    "kv_cache_tuning",
    "quantization",
    "engine_tuning",
    "rightsizing",
    "consolidation",
    "scale_out",
    "cross_cloud_placement",
    "quality_rollback",
]
RiskLevel = Literal["low", "medium", "high"]
Lifecycle = Literal["on-demand", "spot"]
InstanceState = Literal["pending", "running", "stopped", "terminated"]


class RecommendationStatus(StrEnum):
    """State of a recommendation; from `executing` on it follows its optimization."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


RISK_ORDER: dict[RiskLevel, int] = {"low": 0, "medium": 1, "high": 2}
ADVICE_ONLY: frozenset[RecommendationType] = frozenset({"commitment", "region_advice"})

TYPES_OF: dict[AgentType, frozenset[RecommendationType]] = {
    "cost": frozenset({"spot_migration", "idle_shutdown", "commitment", "region_advice"}),
    "performance": frozenset({"kv_cache_tuning", "quantization", "engine_tuning"}),
    "resource": frozenset({"rightsizing", "consolidation", "scale_out", "cross_cloud_placement"}),
    "application": frozenset({"quality_rollback"}),
}
"""What each agent may recommend."""

# The agents that must agree to a change, unless they proposed it.
VALIDATORS: tuple[AgentType, ...] = ("performance", "application")


def validators_of(proposer: AgentType) -> list[AgentType]:
    """The agents that must validate a recommendation before its approval: none validates its own."""
    return [agent for agent in VALIDATORS if agent != proposer]


def pending_validators(proposer: AgentType, validated_by: Collection[AgentType]) -> list[AgentType]:
    """The validators that have not given their verdict yet."""
    return [agent for agent in validators_of(proposer) if agent not in validated_by]


def within_risk(risk: RiskLevel, limit: RiskLevel) -> bool:
    """Whether a customer whose limit is `limit` accepts a change of risk `risk`."""
    return RISK_ORDER[risk] <= RISK_ORDER[limit]
