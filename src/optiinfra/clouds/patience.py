"""Asking a cloud again that refuses for now: for a bounded time, after which its last refusal counts."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from optiinfra.clouds.protocol import CloudError

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def patiently(
    attempt: Callable[[], Awaitable[T]],
    seconds: float,
    refusals: type[CloudError] = CloudError,
    *,
    pause: float = 0.5,
) -> T:
    """Call `attempt` until it raises none of these errors, and let the last one through after so many seconds."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return await attempt()
        except refusals as error:
            if time.monotonic() + pause > ends:
                raise
            log.debug("the cloud refuses for now", error=str(error))
        await asyncio.sleep(pause)
