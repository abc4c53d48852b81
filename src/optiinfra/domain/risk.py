"""The least risk of a change, by its type and what it does: an agent's own estimate may only be higher."""

from collections.abc import Mapping

from optiinfra.domain.recommendation import RISK_ORDER, RecommendationType, RiskLevel

FREQUENT = 0.10
"""Interruptions per month and instance that count as frequent: the third of Spot Advisor's five bands."""
FEW_REPLICAS = 3
"""Number of replicas up to which losing one takes a third of the capacity or more."""

LEAST: Mapping[RecommendationType, RiskLevel] = {
    "spot_migration": "low",  # and what `spot_risk` says
    "idle_shutdown": "low",
    "commitment": "low",
    "region_advice": "low",
    "kv_cache_tuning": "medium",
    "quantization": "medium",
    "engine_tuning": "medium",
    "rightsizing": "medium",
    "consolidation": "medium",
    "scale_out": "low",
    "cross_cloud_placement": "high",
    "quality_rollback": "medium",
}
"""By type. What serves requests with other engine arguments or on other hardware is never of low risk."""


def spot_risk(replicas: int, interruptions_per_month: float) -> RiskLevel:
    """The risk of spot: high if one interruption takes all replicas, low if interruptions are rare or take few."""
    if replicas <= 1:
        return "high"
    return "medium" if interruptions_per_month > FREQUENT and replicas <= FEW_REPLICAS else "low"


def highest(*risks: RiskLevel) -> RiskLevel:
    """The highest of some risks."""
    return max(risks, key=RISK_ORDER.__getitem__)
