"""The judgement of a migration: each thing that may be lost, doubled or left over is seen, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from optiinfra.api.common import now
from optiinfra.api.recommendations import Optimization, Result, Step
from optiinfra.domain.optimization import STEPS, rollback_step
from tests.helpers.migration_faults import Ended, Estate, faults_of

OLD, NEW, OTHER = ("p4de.24xlarge", "on-demand"), ("p4de.24xlarge", "spot"), ("p5.48xlarge", "on-demand")
DONE = STEPS["spot_migration"]
BACK = tuple(rollback_step(step) for step in reversed(DONE[:3]))
RESULT = Result(success=True, predicted_savings=1.0, actual_savings=1.0)
UNDONE_RESULT = Result(success=False, predicted_savings=1.0, original_state_restored=True, error="on request")
READY = [{"replica_id": "a", "state": "ready"}, {"replica_id": "b", "state": "ready"}]
FLEET: dict[str, Any] = {"requests_dropped": 3, "replicas": READY, "weights": {"a": 0.5, "b": 0.5}}


def steps(*names: str, **changes: Any) -> list[Step]:
    return [
        Step(name=name, status="completed", attempt=1, started_at=now(), completed_at=now(), detail={}).model_copy(
            update=changes
        )
        for name in names
    ]


def optimization(**changes: Any) -> Optimization:
    return Optimization(
        id="opt_1",
        recommendation_id="rec_1",
        type="spot_migration",
        status="completed",
        started_at=now(),
        completed_at=now(),
        execution_steps=steps(*DONE),
        rollback_steps=[],
        result=RESULT,
    ).model_copy(update=changes)


def events(end: str, *done: str) -> list[dict[str, Any]]:
    """All that is told of an optimization with these steps, and one thing of another."""
    told = [
        ("optimization_started", None),
        *((kind, step) for step in done for kind in ("step_started", "step_completed")),
    ]
    told += [("outcome_stored", None), (end, None)]
    mine = [{"event_type": kind, "step": step, "optimization_id": "opt_1"} for kind, step in told]
    return [
        {"seq": number, **event}
        for number, event in enumerate([{"event_type": "x", "step": None, "optimization_id": None}, *mine], 1)
    ]


WELL = Ended(
    wanted="completed",
    optimization=optimization(),
    optimizations=["opt_1"],
    events=events("optimization_completed", *DONE),
    spot_requests=["active", "active"],
    orders=2,
    before=Estate([OLD, OLD, OTHER], FLEET),
    after=Estate([NEW, OTHER, NEW], FLEET | {"weights": {"c": 0.5, "d": 0.5}}),
    moved=OLD,
    to=NEW,
)
UNDONE = replace(
    WELL,
    wanted="rolled_back",
    optimization=optimization(
        status="rolled_back",
        execution_steps=[*steps(*DONE[:2]), *steps(DONE[2], status="failed")],
        rollback_steps=steps(*BACK),
        result=UNDONE_RESULT,
    ),
    events=events("optimization_rolled_back", *DONE[:3], *BACK),
    after=WELL.before,
    spot_requests=["cancelled", "cancelled"],
)


def after(base: Ended, *running: tuple[str, str], **fleet: Any) -> Ended:
    return replace(base, after=Estate(running or base.after.running, {**base.after.fleet, **fleet}))


def but(base: Ended, **changes: Any) -> Ended:
    return replace(base, optimization=base.optimization.model_copy(update=changes))


@pytest.mark.parametrize("ended", [WELL, UNDONE], ids=["carried out", "undone"])
def test_a_migration_that_is_whole_has_no_fault(ended: Ended) -> None:
    assert not faults_of(ended), faults_of(ended)


CASES = {
    "still running": (but(WELL, status="running"), "lost", "is running"),
    "failed": (but(UNDONE, status="failed"), "lost", "is failed"),
    "undone though it was well": (replace(UNDONE, wanted="completed"), "lost", "was to be completed"),
    "done though it was to be undone": (replace(WELL, wanted="rolled_back"), "lost", "was to be rolled_back"),
    "not measured": (but(WELL, result=RESULT.model_copy(update={"error": "away"})), "lost", "not known"),
    "not remembered": (
        replace(WELL, events=[{**e, "event_type": "y"} if "outcome" in e["event_type"] else e for e in WELL.events]),
        "lost",
        "outcome",
    ),
    "not restored": (
        but(UNDONE, result=UNDONE_RESULT.model_copy(update={"original_state_restored": False})),
        "lost",
        "not restored",
    ),
    "other weights": (after(UNDONE, weights={"a": 0.9, "b": 0.1}), "lost", "weights"),
    "a step too few": (but(WELL, execution_steps=steps(*DONE[:-1])), "lost", "completed with"),
    "a step not undone": (but(UNDONE, rollback_steps=steps(*BACK[1:])), "lost", "undid"),
    "a step without end": (but(UNDONE, rollback_steps=steps(*BACK, status="running")), "lost", "stand at"),
    "a gap": (replace(WELL, events=[e for e in WELL.events if e["seq"] != 5]), "lost", "numbered"),
    "no events": (replace(WELL, events=[]), "lost", "tells of it"),
    "a step not told": (replace(UNDONE, events=events("optimization_rolled_back", *DONE[:3])), "lost", BACK[0]),
    "dropped": (after(WELL, requests_dropped=10), "lost", "7 requests"),
    "too few run": (after(WELL, NEW, OTHER), "lost", "do not run"),
    "a replica too few": (after(WELL, replicas=READY[:1]), "lost", "replicas"),
    "told twice": (replace(WELL, events=[*WELL.events, {**WELL.events[2], "seq": 99}]), "doubled", "2 times"),
    "done twice": (but(WELL, execution_steps=steps(*DONE, DONE[-1])), "doubled", "2 times"),
    "ordered twice": (replace(WELL, spot_requests=["active", "active", "cancelled"]), "doubled", "ordered"),
    "another optimization": (replace(WELL, optimizations=["opt_1", "opt_2"]), "doubled", "opt_2"),
    "too many run": (after(WELL, NEW, NEW, NEW, OTHER), "left_over", "besides"),
    "old ones run": (after(UNDONE, OLD, OLD, OTHER, NEW), "left_over", "besides"),
    "requests left": (replace(UNDONE, spot_requests=["active", "cancelled"]), "left_over", "spot requests"),
    "a dead replica": (after(WELL, replicas=[*READY, {"replica_id": "c", "state": "dead"}]), "left_over", "replicas"),
}


@pytest.mark.parametrize(("ended", "kind", "words"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_is_seen_under_its_kind(ended: Ended, kind: str, words: str) -> None:
    found = faults_of(ended)
    assert any(words in text for text in getattr(found, kind)), found
