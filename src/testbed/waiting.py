"""Waiting on a condition, with a deadline, and an error that says what was last seen."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

POLL_SECONDS = 0.1

T = TypeVar("T")

_unfinished: list[str] = []


class WaitTimeoutError(AssertionError):
    """The deadline passed; the message says what was waited for and what was last seen."""


def timeout_factor() -> float:
    """``OPTIINFRA_TIMEOUT_FACTOR``: how much every deadline is stretched on a slow machine."""
    text = os.environ.get("OPTIINFRA_TIMEOUT_FACTOR", "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise ValueError(f"OPTIINFRA_TIMEOUT_FACTOR={text!r}: give a number above 0, such as 2")
    return factor


def stretched(seconds: float) -> float:
    """A deadline of this many seconds, stretched by the factor."""
    return seconds * timeout_factor()


def wait_until(
    probe: Callable[[], T],
    what: str,
    deadline: float,
    *,
    accept: Callable[[T], bool] = bool,
    transient: tuple[type[Exception], ...] = (),
    poll: float = POLL_SECONDS,
) -> T:
    """Call ``probe`` until ``accept`` likes its answer, and return that answer.

    ``deadline`` is in seconds before stretching. Exceptions of the types in ``transient`` count as "not yet"; any other
    ends the wait at once. Raises WaitTimeoutError with the last answer or exception.
    """
    allowed = stretched(deadline)
    end = time.monotonic() + allowed
    _unfinished[:] = [f"waiting for {what}; nothing seen yet"]
    while True:
        try:
            seen = probe()
        except transient as error:
            last = f"{type(error).__name__}: {error}"
        else:
            if accept(seen):
                _unfinished.clear()
                return seen
            last = repr(seen)
        _unfinished[:] = [f"waiting for {what}; last seen: {last}"]
        if time.monotonic() >= end:
            raise WaitTimeoutError(f"waited {allowed:.0f} s for {what}; last seen: {last}")
        time.sleep(poll)


def unfinished_wait() -> str | None:
    """The wait that did not end well, if the last one did not: what a test was waiting for when it was stopped."""
    return _unfinished[0] if _unfinished else None


def reset_waits() -> None:
    """Start afresh: a new test begins."""
    _unfinished.clear()
