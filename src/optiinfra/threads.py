"""Blocking calls in threads, limited in number."""

import asyncio
import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(limiter: CapacityLimiter, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a call in a thread.

    A cancelled caller does not wait for the thread, which counts until it ends: otherwise callers that give up while a
    store hangs would leave more and more threads behind.
    """
    borrower = object()
    await limiter.acquire_on_behalf_of(borrower)
    call = functools.partial(operation, *args, **kwargs)
    running = asyncio.ensure_future(to_thread.run_sync(call, abandon_on_cancel=True, limiter=CapacityLimiter(math.inf)))

    def ended(_running: "asyncio.Future[T]") -> None:
        limiter.release_on_behalf_of(borrower)
        if not running.cancelled():
            running.exception()  # nobody else may ask for it

    running.add_done_callback(ended)
    return await asyncio.shield(running)
