"""What a recommendation is, who makes it and who must agree."""

from collections.abc import Collection
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
RecommendationStatus = Literal[
    "pending",
    "approved",
    "rejected",
    "executing",
    "completed",
    "failed",
    "rolled_back",
    "superseded",
    "expired",
]
Lifecycle = Literal["on-demand", "spot"]
InstanceState = Literal["pending", "running", "stopped", "terminated"]

RISK_ORDER: dict[RiskLevel, int] = {"low": 0, "medium": 1, "high": 2}
ADVICE_ONLY: frozenset[RecommendationType] = frozenset({"commitment", "region_advice"})

# Who must agree with a change, besides the agent that proposes it.
VALIDATORS: tuple[AgentType, ...] = ("performance", "application")


def validators_of(proposer: AgentType) -> list[AgentType]:
    """Who must have judged a recommendation before it may be approved: nobody judges their own."""
    return [agent for agent in VALIDATORS if agent != proposer]


def awaited(proposer: AgentType, heard: Collection[AgentType]) -> list[AgentType]:
    """The validators that have not spoken yet."""
    return [agent for agent in validators_of(proposer) if agent not in heard]


def within_risk(risk: RiskLevel, limit: RiskLevel) -> bool:
    """Whether a customer whose limit is `limit` accepts a change of risk `risk`."""
    return RISK_ORDER[risk] <= RISK_ORDER[limit]
