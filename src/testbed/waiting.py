"""Waiting for a condition with a deadline. The error says what was last seen."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

POLL_SECONDS = 0.1

T = TypeVar("T")

_unfinished: list[str] = []


class WaitTimeoutError(AssertionError):
    """The deadline passed. The message has the condition and what was last seen."""


def timeout_factor() -> float:
    """`OPTIINFRA_TIMEOUT_FACTOR`, by which every deadline is stretched on a slow machine. ValueError unless above 0."""
    text = os.environ.get("OPTIINFRA_TIMEOUT_FACTOR", "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise ValueError(f"OPTIINFRA_TIMEOUT_FACTOR={text!r}: give a number above 0, such as 2")
    return factor


def stretched(seconds: float) -> float:
    """A deadline in seconds, multiplied by the timeout factor."""
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
    """Call `probe` until `accept` is true for its result, and return that result.

    `what` completes "waiting for ..." in messages. `deadline` is in seconds before stretching. Exceptions of the types
    in `transient` count as "not yet"; any other ends the wait. Raises WaitTimeoutError with what was last seen.
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
    """What a test was waiting for when it was stopped or failed; None if the last wait succeeded."""
    return _unfinished[0] if _unfinished else None


def reset_waits() -> None:
    """Forget the last wait, at the start of a new test."""
    _unfinished.clear()
