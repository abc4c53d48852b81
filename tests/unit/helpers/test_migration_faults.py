"""The bench's judgement of a migration: each thing that may be lost, doubled or left over is seen, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from optiinfra.api.common import now
from optiinfra.api.recommendations import Optimization, Result, Step
from optiinfra.domain.optimization import STEPS, undo_name
from tests.bench.migrations import Ended, faults_of

OLD, NEW, OTHER = ("p4de.24xlarge", "on-demand"), ("p4de.24xlarge", "spot"), ("p5.48xlarge", "on-demand")
DONE = STEPS["spot_migration"]


def steps(*names: str) -> list[Step]:
    return [
        Step(name=name, status="completed", attempt=1, started_at=now(), completed_at=now(), detail={})
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
        result=Result(success=True, predicted_savings=1.0),
    ).model_copy(update=changes)


def event(seq: int, step: str = "deploy_canary", **changes: Any) -> dict[str, Any]:
    return {"seq": seq, "event_type": "step_started", "step": step, "optimization_id": "opt_1", **changes}


WELL = Ended(
    optimization=optimization(),
    events=[event(1, "deploy_canary"), event(2, "validate_canary"), event(3, "validate_canary", optimization_id=None)],
    before=[OLD, OLD, OTHER],
    wanted=[NEW, NEW, OTHER],
    running=[NEW, OTHER, NEW],
    spot_requests=["active", "active"],
    orders=2,
    fleet={"requests_dropped": 0, "replicas": [{"replica_id": "rep-1", "state": "ready"}]},
)
UNDONE = replace(
    WELL,
    optimization=optimization(
        status="rolled_back",
        execution_steps=steps(*DONE[:3]),
        rollback_steps=steps(*(undo_name(step) for step in reversed(DONE[:3]))),
    ),
    running=WELL.before,
    spot_requests=["cancelled", "cancelled"],
)


@pytest.mark.parametrize("ended", [WELL, UNDONE], ids=["carried out", "undone"])
def test_a_migration_that_is_whole_has_no_fault(ended: Ended) -> None:
    assert not faults_of(ended)


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"optimization": optimization(status="running")}, "lost", "still running"),
        ({"optimization": optimization(status="failed", execution_steps=[])}, "lost", "opt_1 failed"),
        ({"optimization": optimization(execution_steps=steps(*DONE[:-1]))}, "lost", "completed with the steps"),
        ({"optimization": optimization(execution_steps=steps(*DONE, DONE[-1]))}, "doubled", "stands there 2 times"),
        ({"events": [event(1), event(3, "x")]}, "lost", "numbered"),
        ({"events": [event(1), event(2)]}, "doubled", "told 2 times"),
        ({"running": [NEW, NEW, NEW, OTHER]}, "left_over", "run besides"),
        ({"running": [NEW, OTHER]}, "lost", "do not run"),
        ({"spot_requests": ["active"] * 3}, "doubled", "3 spot instances were ordered"),
        ({"fleet": {"requests_dropped": 7, "replicas": []}}, "lost", "7 requests"),
        (
            {"fleet": {"requests_dropped": 0, "replicas": [{"replica_id": "r", "state": "dead"}]}},
            "left_over",
            "not ready",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_wrong_is_seen_under_its_kind(changed: dict[str, Any], kind: str, words: str) -> None:
    found = faults_of(replace(WELL, **changed))
    assert any(words in text for text in getattr(found, kind)), found


def test_what_was_not_undone_is_seen() -> None:
    half = optimization(
        status="rolled_back", execution_steps=steps(*DONE[:3]), rollback_steps=steps("undo_validate_canary")
    )
    found = faults_of(replace(UNDONE, optimization=half, running=[*WELL.before, NEW]))
    assert any("undid" in text for text in found.lost)
    assert any("run besides" in text for text in found.left_over)
