"""Checks of finished migrations: every kind of loss, duplication and leftover is found, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from optiinfra.api.recommendations import Result
from optiinfra.domain.optimization import rollback_step
from tests.helpers.examples import SPOT_MIGRATION, optimization, steps
from tests.helpers.migration_checks import FinishedMigration, ObservedEstate, find_violations

OLD, NEW, OTHER = ("p4de.24xlarge", "on-demand"), ("p4de.24xlarge", "spot"), ("p5.48xlarge", "on-demand")
BACK = tuple(rollback_step(step) for step in reversed(SPOT_MIGRATION[:3]))
RESULT = Result(success=True, predicted_savings=1.0, actual_savings=1.0)
ROLLED_BACK_RESULT = Result(success=False, predicted_savings=1.0, original_state_restored=True, error="on request")
READY = [{"replica_id": "a", "state": "ready"}, {"replica_id": "b", "state": "ready"}]
FLEET: dict[str, Any] = {"requests_dropped": 3, "replicas": READY, "weights": {"a": 0.5, "b": 0.5}}


def events(end: str, *done: str) -> list[dict[str, Any]]:
    """The events of an optimization with these steps, and one event of another."""
    recorded = [
        ("optimization_started", None),
        *((kind, step) for step in done for kind in ("step_started", "step_completed")),
    ]
    recorded += [("outcome_stored", None), (end, None)]
    own = [{"event_type": kind, "step": step, "optimization_id": "opt_1"} for kind, step in recorded]
    return [
        {"seq": number, **event}
        for number, event in enumerate([{"event_type": "x", "step": None, "optimization_id": None}, *own], 1)
    ]


COMPLETED = FinishedMigration(
    expected="completed",
    optimization=optimization(),
    optimizations=["opt_1"],
    events=events("optimization_completed", *SPOT_MIGRATION),
    spot_requests=["active", "active"],
    instance_count=2,
    before=ObservedEstate([OLD, OLD, OTHER], FLEET),
    after=ObservedEstate([NEW, OTHER, NEW], FLEET | {"weights": {"c": 0.5, "d": 0.5}}),
    source=OLD,
    target=NEW,
)
ROLLED_BACK = replace(
    COMPLETED,
    expected="rolled_back",
    optimization=optimization(
        status="rolled_back",
        execution_steps=[*steps(*SPOT_MIGRATION[:2]), *steps(SPOT_MIGRATION[2], status="failed")],
        rollback_steps=steps(*BACK),
        result=ROLLED_BACK_RESULT,
    ),
    events=events("optimization_rolled_back", *SPOT_MIGRATION[:3], *BACK),
    after=COMPLETED.before,
    spot_requests=["cancelled", "cancelled"],
)


def after(base: FinishedMigration, *running: tuple[str, str], **fleet: Any) -> FinishedMigration:
    return replace(base, after=ObservedEstate(running or base.after.running, {**base.after.fleet, **fleet}))


def changed(base: FinishedMigration, **changes: Any) -> FinishedMigration:
    return replace(base, optimization=base.optimization.model_copy(update=changes))


@pytest.mark.parametrize("migration", [COMPLETED, ROLLED_BACK], ids=["completed", "rolled back"])
def test_find_violations_in_an_intact_migration_finds_none(migration: FinishedMigration) -> None:
    assert not find_violations(migration), find_violations(migration)


CASES = {
    "still running": (changed(COMPLETED, status="running"), "lost", "is running"),
    "failed": (changed(ROLLED_BACK, status="failed"), "lost", "is failed"),
    "rolled back without reason": (replace(ROLLED_BACK, expected="completed"), "lost", "expected completed"),
    "completed despite a failure": (replace(COMPLETED, expected="rolled_back"), "lost", "expected rolled_back"),
    "savings not measured": (
        changed(COMPLETED, result=RESULT.model_copy(update={"error": "away"})),
        "lost",
        "not measured",
    ),
    "outcome not stored": (
        replace(
            COMPLETED,
            events=[{**e, "event_type": "y"} if "outcome" in e["event_type"] else e for e in COMPLETED.events],
        ),
        "lost",
        "outcome",
    ),
    "state not restored": (
        changed(ROLLED_BACK, result=ROLLED_BACK_RESULT.model_copy(update={"original_state_restored": False})),
        "lost",
        "not restored",
    ),
    "other weights": (after(ROLLED_BACK, weights={"a": 0.9, "b": 0.1}), "lost", "weights"),
    "missing step": (changed(COMPLETED, execution_steps=steps(*SPOT_MIGRATION[:-1])), "lost", "completed with"),
    "step not rolled back": (changed(ROLLED_BACK, rollback_steps=steps(*BACK[1:])), "lost", "rolled back"),
    "step without end": (
        changed(ROLLED_BACK, rollback_steps=steps(*BACK, status="running")),
        "lost",
        "incomplete steps",
    ),
    "gap in event numbers": (
        replace(COMPLETED, events=[e for e in COMPLETED.events if e["seq"] != 5]),
        "lost",
        "numbered",
    ),
    "no events": (replace(COMPLETED, events=[]), "lost", "no event optimization_started"),
    "step without events": (
        replace(ROLLED_BACK, events=events("optimization_rolled_back", *SPOT_MIGRATION[:3])),
        "lost",
        BACK[0],
    ),
    "dropped requests": (after(COMPLETED, requests_dropped=10), "lost", "7 requests"),
    "missing instance": (after(COMPLETED, NEW, OTHER), "lost", "do not run"),
    "missing replica": (after(COMPLETED, replicas=READY[:1]), "lost", "replicas"),
    "event twice": (
        replace(COMPLETED, events=[*COMPLETED.events, {**COMPLETED.events[2], "seq": 99}]),
        "duplicated",
        "2 times",
    ),
    "step twice": (
        changed(COMPLETED, execution_steps=steps(*SPOT_MIGRATION, SPOT_MIGRATION[-1])),
        "duplicated",
        "2 times",
    ),
    "spot request twice": (
        replace(COMPLETED, spot_requests=["active", "active", "cancelled"]),
        "duplicated",
        "requested",
    ),
    "another optimization": (replace(COMPLETED, optimizations=["opt_1", "opt_2"]), "duplicated", "opt_2"),
    "additional instance": (after(COMPLETED, NEW, NEW, NEW, OTHER), "left_over", "in addition"),
    "spot instance after rollback": (after(ROLLED_BACK, OLD, OLD, OTHER, NEW), "left_over", "in addition"),
    "open spot request": (
        replace(ROLLED_BACK, spot_requests=["active", "cancelled"]),
        "left_over",
        "spot requests",
    ),
    "dead replica": (
        after(COMPLETED, replicas=[*READY, {"replica_id": "c", "state": "dead"}]),
        "left_over",
        "replicas",
    ),
}


@pytest.mark.parametrize(("migration", "kind", "message"), CASES.values(), ids=CASES.keys())
def test_find_violations_in_a_defective_migration_reports_the_kind(
    migration: FinishedMigration, kind: str, message: str
) -> None:
    found = find_violations(migration)
    assert any(message in text for text in getattr(found, kind)), found
