"""The order of tests, and who may run at the same time.

Performance tests run last, and each alone: no other test of the session runs meanwhile, in any xdist worker. Other
system tests run first: they take longest, and mostly wait for services, so that unit tests can run beside them.

This is a pytest plugin, which `testbed.plugin` loads.
"""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from testbed import sessions
from testbed.locks import try_lock
from testbed.waiting import wait_until

ALONE = "performance"
FIRST = ("e2e", "integration", "security")
WAIT_SECONDS = 2400.0
"""More than the timeouts of a scenario and of all performance tests together."""

_taking_turns = pytest.StashKey[bool]()
_turn = pytest.StashKey[contextlib.ExitStack]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests in their order, after pytest-randomly has shuffled."""
    items.sort(key=lambda item: (_runs_alone(item), not any(map(item.get_closest_marker, FIRST))))
    config.stash[_taking_turns] = any(map(_runs_alone, items))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the test's turn if any runs alone. Timeouts of system tests begin later, with the test function."""
    session = sessions.current()
    if session is not None and item.config.stash[_taking_turns]:
        stack = item.stash[_turn] = contextlib.ExitStack()
        stack.enter_context(turn(session, alone=_runs_alone(item)))
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """End the turn after all fixtures have ended."""
    try:
        return (yield)
    finally:
        if _turn in item.stash:
            item.stash[_turn].close()


@contextlib.contextmanager
def turn(session: Path, *, alone: bool) -> Iterator[None]:
    """Run during the block alone, or together with other tests that do not run alone.

    Whoever waits for the tests before it holds the turnstile, so that later tests wait behind it.
    """
    with contextlib.ExitStack() as stack:
        with _locked(session / "turnstile", shared=False):
            stack.enter_context(_locked(session / "running", shared=not alone))
        yield


@contextlib.contextmanager
def _locked(path: Path, *, shared: bool) -> Iterator[None]:
    file = wait_until(lambda: try_lock(path, shared=shared), f"the lock {path}", WAIT_SECONDS, poll=0.05)
    assert file is not None
    with file:
        yield


def _runs_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker(ALONE) is not None
