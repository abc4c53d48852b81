"""The steps of each optimization type, and the order of their rollback."""

from collections.abc import Mapping, Sequence
from enum import StrEnum


class OptimizationStatus(StrEnum):
    """State of an optimization."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


class StepStatus(StrEnum):
    """State of one step of an optimization, or of its rollback."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


FINAL = frozenset({OptimizationStatus.COMPLETED, OptimizationStatus.ROLLED_BACK, OptimizationStatus.FAILED})
"""States in which an optimization has ended. Only a completed one can still be rolled back."""

STEPS: Mapping[str, tuple[str, ...]] = {
    "spot_migration": (
        "create_spot_instances",
        "deploy_canary",
        "validate_canary",
        "scale_to_50_percent",
        "validate_50_percent",
        "full_migration",
        "terminate_ondemand",
    ),
    "engine_tuning": (
        "snapshot_configuration",
        "deploy_canary",
        "validate_canary",
        "scale_to_50_percent",
        "validate_50_percent",
        "full_rollout",
        "retire_previous",
    ),
    "idle_shutdown": ("snapshot_inventory", "stop_instances", "verify_unaffected", "terminate_instances"),
}
"""Names of the steps that each type executes, in order: the public list."""

TARGETS, CANARY, RESTORED = "targets", "canary", "restored"
"""Purposes for which an optimization creates instances: migration target, canary, replacement of an original."""

_UNWANTED_AFTER: Mapping[str, frozenset[str]] = {
    TARGETS: frozenset({OptimizationStatus.ROLLED_BACK}),
    CANARY: frozenset({OptimizationStatus.ROLLED_BACK, OptimizationStatus.COMPLETED}),
}

CANARY_SHARE = 0.2
"""Share of a deployment's traffic that a canary carries."""


def is_left_over(purpose: str, status: str) -> bool:
    """Whether an instance created for that purpose should be gone after its optimization ended with that status.

    A failed optimization keeps its instances, and its result says so.
    """
    return status in _UNWANTED_AFTER.get(purpose, frozenset())


_ROLLBACK_PREFIX = "undo_"


def rollback_step(step: str) -> str:
    """Public name of the rollback of `step`."""
    return f"{_ROLLBACK_PREFIX}{step}"


def is_rollback(name: str) -> bool:
    """Whether a step of this name is the rollback of another."""
    return name.startswith(_ROLLBACK_PREFIX)


def rollback_order(begun: Sequence[str]) -> list[str]:
    """Steps to roll back, the last started first. A step that failed is rolled back as well."""
    return list(reversed(begun))


def shifted_weights(old: Sequence[str], new: Sequence[str], new_share: float) -> dict[str, float]:
    """Weights that put `new_share` (0..1) of the traffic on the new replicas, spread evenly within old and new ones.

    Returns `{replica_id: weight}` summing to 1; raises ValueError if a share has no replica.
    """
    if (not old and new_share < 1.0) or (not new and new_share > 0.0):
        raise ValueError(f"{new_share:.0%} of the traffic on {len(new)} new replicas, the rest on {len(old)} old ones")
    weights = {replica: (1.0 - new_share) / len(old) for replica in old}
    return weights | {replica: new_share / len(new) for replica in new}
