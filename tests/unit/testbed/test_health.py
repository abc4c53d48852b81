"""When the supervisor's view makes a part unhealthy although its probe succeeds."""

from datetime import UTC, datetime, timedelta

import pytest

from testbed.health import Snapshot
from testbed.parts import find_part
from testbed.supervision import Exit, ProcessState

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def snapshot(state: str, *, up_for: float, ages: tuple[float, ...] = ()) -> Snapshot:
    process = ProcessState("redis", state, 4711, NOW - timedelta(seconds=up_for))
    exits = [Exit("redis", NOW - timedelta(seconds=age), "terminated by SIGKILL; not expected") for age in ages]
    return Snapshot({"redis": process}, exits)


def problem(taken: Snapshot) -> str | None:
    return taken.problem(find_part("redis"), NOW)


@pytest.mark.parametrize("state", ["STARTING", "RUNNING"])
def test_part_without_restarts_has_no_problem(state: str) -> None:
    assert problem(snapshot(state, up_for=0.5)) is None


@pytest.mark.parametrize("state", ["BACKOFF", "EXITED", "FATAL", "STOPPED"])
def test_part_that_does_not_run_reports_its_state(state: str) -> None:
    assert problem(snapshot(state, up_for=0)) == state.lower()


def test_part_restarted_recently_is_unhealthy_until_stable() -> None:
    assert "restarted 2 s ago (terminated by SIGKILL" in str(problem(snapshot("RUNNING", up_for=2, ages=(3,))))
    assert problem(snapshot("RUNNING", up_for=6, ages=(7,))) is None


def test_part_in_a_crash_loop_is_unhealthy_while_it_runs() -> None:
    assert "restarted 3 times in the last minute" in str(problem(snapshot("RUNNING", up_for=6, ages=(50, 30, 7))))
    assert problem(snapshot("RUNNING", up_for=6, ages=(30, 7))) is None


def test_part_without_a_supervisor_is_unhealthy() -> None:
    assert "start-test-env" in str(problem(Snapshot({}, [])))
