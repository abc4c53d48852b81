"""Waiting for what another process does: on a condition, with a deadline, saying what was last seen."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


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
