"""When a part counts as unhealthy whatever it answers."""

from datetime import UTC, datetime, timedelta

import pytest

from testbed.health import SupervisorSnapshot
from testbed.parts import find_part
from testbed.supervision import Exit, ProcessState

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def seen(state: str, *, up_for: float, ages: tuple[float, ...] = ()) -> SupervisorSnapshot:
    process = ProcessState("redis", state, 4711, NOW - timedelta(seconds=up_for))
    exits = [Exit("redis", NOW - timedelta(seconds=age), "terminated by SIGKILL; not expected") for age in ages]
    return SupervisorSnapshot({"redis": process}, exits)


def trouble(supervised: SupervisorSnapshot) -> str | None:
    return supervised.problem(find_part("redis"), NOW)


@pytest.mark.parametrize("state", ["STARTING", "RUNNING"])
def test_a_part_that_never_ended_is_believed(state: str) -> None:
    assert trouble(seen(state, up_for=0.5)) is None


@pytest.mark.parametrize("state", ["BACKOFF", "EXITED", "FATAL", "STOPPED"])
def test_a_part_that_does_not_run_is_named_so(state: str) -> None:
    assert trouble(seen(state, up_for=0)) == state.lower()


def test_a_part_that_was_just_brought_back_is_not_believed_yet() -> None:
    assert "restarted 2 s ago (terminated by SIGKILL" in str(trouble(seen("RUNNING", up_for=2, ages=(3,))))
    assert trouble(seen("RUNNING", up_for=6, ages=(7,))) is None


def test_a_crash_loop_is_seen_although_it_runs() -> None:
    assert "restarted 3 times in the last minute" in str(trouble(seen("RUNNING", up_for=6, ages=(50, 30, 7))))
    assert trouble(seen("RUNNING", up_for=6, ages=(30, 7))) is None


def test_a_part_that_nobody_supervises_is_not_healthy() -> None:
    assert "start-test-env" in str(trouble(SupervisorSnapshot({}, [])))
