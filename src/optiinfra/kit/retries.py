"""Retry a call until it succeeds or a deadline passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_before_delay, wait_fixed

T = TypeVar("T")


class DeadlineError(TimeoutError):
    """The deadline passed; the text names the last error."""


async def retry_until_deadline(
    attempt: Callable[[], Awaitable[T]], what: str, deadline: float, *, interval: float = 0.1
) -> T:
    """Call `attempt` every `interval` seconds until it stops raising, and return its result.

    Raises DeadlineError after `deadline` seconds; an attempt that hangs is cancelled then.
    """
    ends = time.monotonic() + deadline

    async def bounded_attempt() -> T:
        async with asyncio.timeout(max(interval, ends - time.monotonic())):
            return await attempt()

    policy = AsyncRetrying(
        retry=retry_if_exception_type(Exception),
        wait=wait_fixed(interval),
        stop=stop_before_delay(deadline),
        reraise=True,
    )
    try:
        return await policy(bounded_attempt)
    except Exception as error:
        raise DeadlineError(
            f"{what} did not answer within {deadline:.0f} s; last error: {type(error).__name__}: {error}"
        ) from error
