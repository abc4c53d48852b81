"""The order of performance tests, and which tests run at the same time, in separate pytest runs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed import paths, sessions
from testbed.exclusive import turn
from testbed.locks import is_held
from testbed.waiting import wait_until

MIXED = """
import pytest

@pytest.mark.performance
def test_measured(): pass
@pytest.mark.integration
def test_first(): pass
def test_second(): pass
@pytest.mark.performance
def test_measured_too(): pass
@pytest.mark.security
def test_third(): pass
"""

# Each test shows that it runs, from the setup of its fixture to the teardown, and looks which others do.
OBSERVING = """
import time
from pathlib import Path

import pytest

FOLDER = Path("running").absolute()

@pytest.fixture
def running(request):
    FOLDER.mkdir(exist_ok=True)
    mine = FOLDER / request.node.name
    mine.touch()
    yield lambda: {file.name.partition("[")[0] for file in FOLDER.iterdir()}
    time.sleep(0.02)
    mine.unlink()

@pytest.mark.integration
@pytest.mark.parametrize("number", range(8))
def test_shared(running, number):
    time.sleep(0.02)
    assert running() == {"test_shared"}

@pytest.mark.performance
@pytest.mark.parametrize("number", range(4))
def test_alone(running, number):
    for _ in range(10):
        assert running() == {"test_alone"}
        assert len(list(FOLDER.iterdir())) == 1
        time.sleep(0.005)
"""


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inner runs must not wait for the tests of this run."""
    monkeypatch.delenv(sessions.VARIABLE)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_system_tests_are_ordered_first_and_performance_tests_last(pytester: pytest.Pytester, seed: int) -> None:
    pytester.makepyfile(MIXED)
    result = pytester.runpytest_inprocess("-p", "testbed.plugin", "-p", "randomly", f"--randomly-seed={seed}", "-v")
    result.assert_outcomes(passed=5)
    order = [line.partition("::")[2].partition(" ")[0] for line in result.outlines if " PASSED" in line]
    assert [set(order[:2]), order[2], set(order[3:])] == [
        {"test_first", "test_third"},
        "test_second",
        {"test_measured", "test_measured_too"},
    ]


def test_performance_tests_of_parallel_workers_run_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OBSERVING)
    result = pytester.runpytest_subprocess("-p", "testbed.plugin", "-n", "2")
    result.assert_outcomes(passed=12)


def test_wait_of_a_performance_test_does_not_count_against_its_timeout(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.performance
        @pytest.mark.timeout(0.5, func_only=True)
        def test_alone(): pass
        """
    )
    with sessions.hold() as session, ExitStack() as other_test:
        other_test.enter_context(turn(session, alone=False))
        threading.Timer(1.0, other_test.close).start()
        result = pytester.runpytest_inprocess("-p", "testbed.plugin")
    result.assert_outcomes(passed=1)
    assert result.duration > 1.0


def test_tests_that_come_while_a_performance_test_waits_run_after_it(tmp_path: Path) -> None:
    order: list[str] = []

    def run(name: str, *, alone: bool) -> None:
        with turn(tmp_path, alone=alone):
            order.append(name)

    def turnstile_is_held() -> bool:
        return is_held(tmp_path / "turnstile")

    with ThreadPoolExecutor(2) as pool:
        with turn(tmp_path, alone=False):
            pool.submit(run, "alone", alone=True)
            wait_until(turnstile_is_held, "the performance test to wait", 10, poll=0.01)
            later = pool.submit(run, "later", alone=False)
            with pytest.raises(TimeoutError):
                later.result(0.3)
        wait_until(lambda: len(order) == 2, "both tests to run", 10, poll=0.01)
    assert order == ["alone", "later"]
