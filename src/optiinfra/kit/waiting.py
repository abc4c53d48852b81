"""Waiting for what another process does, with a deadline and a word on what was last seen; and giving it up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

_given_up: "set[asyncio.Future[Any]]" = set()


class DeadlineError(TimeoutError):
    """What was waited for did not come in time; the text says what was seen last."""


async def until_answers(attempt: Callable[[], Awaitable[T]], what: str, deadline: float, *, interval: float = 0.1) -> T:
    """Call `attempt` until it stops raising, at most `deadline` seconds, and return what it returned.

    One that hangs is cut off at the deadline.
    """
    ends = time.monotonic() + deadline
    while True:
        try:
            async with asyncio.timeout(max(interval, ends - time.monotonic())):
                return await attempt()
        except Exception as error:
            if time.monotonic() + interval > ends:
                raise DeadlineError(
                    f"{what} did not answer within {deadline:.0f} s; last seen: {type(error).__name__}: {error}"
                ) from error
        await asyncio.sleep(interval)


def give_up(work: "asyncio.Future[Any]") -> None:
    """Cancel, and leave it to end by itself: the client of a store that hangs takes seconds to let go."""
    _given_up.add(work)
    work.add_done_callback(_given_up.discard)
    work.add_done_callback(report_failure)
    work.cancel()


def report_failure(work: "asyncio.Future[Any]") -> None:
    """Log what something failed with that nobody waits for any more, unless a store was away."""
    if work.cancelled() or (error := work.exception()) is None or isinstance(error, StoreUnavailable):
        return
    log.error("what nobody waits for any more has failed", exc_info=error)
