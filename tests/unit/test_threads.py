"""Blocking calls in threads."""

import asyncio
import threading

import pytest
from anyio import CapacityLimiter

from optiinfra.threads import in_thread

pytestmark = pytest.mark.anyio


async def test_thread_of_a_cancelled_caller_counts_until_it_ends() -> None:
    limiter, release = CapacityLimiter(1), threading.Event()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(started.set)
        release.wait()

    hanging = asyncio.create_task(in_thread(limiter, hang))
    await started.wait()
    hanging.cancel()
    done, _ = await asyncio.wait((hanging,), timeout=1.0)
    abandoned = hanging in done and hanging.cancelled()
    waiting = asyncio.create_task(in_thread(limiter, threading.get_ident))
    waited, _ = await asyncio.wait((waiting,), timeout=0.1)
    release.set()
    assert abandoned, "the caller waited for its thread"
    assert waited == set(), "a second thread ran beside the first"
    assert await waiting != threading.get_ident()
    assert limiter.borrowed_tokens == 0


async def test_caller_that_is_cancelled_while_it_waits_starts_no_thread() -> None:
    limiter, called = CapacityLimiter(1), list[str]()
    holder = object()
    await limiter.acquire_on_behalf_of(holder)
    waiting = asyncio.create_task(in_thread(limiter, called.append, "late"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    limiter.release_on_behalf_of(holder)
    assert await in_thread(limiter, lambda: "next") == "next"
    assert called == []


async def test_result_and_exception_of_the_call_are_the_callers() -> None:
    limiter = CapacityLimiter(2)
    assert await in_thread(limiter, divmod, 7, 2) == (3, 1)
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(limiter, int, "x")
    assert limiter.borrowed_tokens == 0
