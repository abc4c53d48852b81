"""The steps of each kind of optimization, and the order in which done steps are undone."""

from collections.abc import Sequence
from typing import Literal

from optiinfra.domain.recommendation import RecommendationType

OptimizationStatus = Literal["pending", "running", "completed", "rolling_back", "rolled_back", "failed"]
StepStatus = Literal["running", "completed", "failed"]

FINAL: frozenset[OptimizationStatus] = frozenset({"completed", "rolled_back", "failed"})

STEPS: dict[RecommendationType, tuple[str, ...]] = {
    "spot_migration": (
        "create_spot_instances",
        "deploy_canary",
        "validate_canary",
        "scale_to_50_percent",
        "validate_50_percent",
        "full_migration",
        "terminate_ondemand",
    ),
}

CANARY_SHARE = 0.2
"""Share of a deployment's traffic that a canary carries."""


def undo_name(step: str) -> str:
    """Name under which undoing `step` is shown."""
    return f"undo_{step}"


def undo_order(started: Sequence[str]) -> list[str]:
    """Steps to undo, last begun first. A step that failed half way is undone as well."""
    return list(reversed(started))


def shifted_weights(old: Sequence[str], new: Sequence[str], new_share: float) -> dict[str, float]:
    """Spread traffic evenly within the old and the new replicas, `new_share` (0..1) of it on the new ones.

    Returns `{replica_id: weight}` summing to 1; ValueError when there is no replica for a share.
    """
    if (not old and new_share < 1.0) or (not new and new_share > 0.0):
        raise ValueError(f"{new_share:.0%} of the traffic on {len(new)} new replicas, the rest on {len(old)} old ones")
    weights = {replica: (1.0 - new_share) / len(old) for replica in old}
    return weights | {replica: new_share / len(new) for replica in new}
