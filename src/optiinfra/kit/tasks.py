"""Helpers for asyncio tasks: race several, count or cancel them, log failures of unawaited ones."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

_cancelled: "set[asyncio.Future[Any]]" = set()


@contextmanager
def counted(counter: Counter[str], key: str) -> Iterator[None]:
    """Count one more of this key while the context lasts; keys without any are removed."""
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


async def first_completed(*coroutines: Coroutine[Any, Any, T]) -> T:
    """Run the coroutines concurrently; return the result of the first that ends, or raise its exception.

    If several end at once, the earliest argument counts. The others are cancelled, and have ended when this returns,
    raises or is cancelled itself.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def gather_to_end(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the coroutines concurrently; their results, or the first failure once all have ended.

    Unlike `asyncio.gather`, which raises while others still run: a rollback must see everything that they did.
    """
    done = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]


def cancel_in_background(task: "asyncio.Future[Any]") -> None:
    """Cancel a task without waiting for its end: the client of a store that hangs takes seconds to disconnect."""
    _cancelled.add(task)
    task.add_done_callback(_cancelled.discard)
    task.add_done_callback(log_failure)
    task.cancel()


def log_failure(task: "asyncio.Future[Any]") -> None:
    """Done callback: log the exception of a task that nobody waits for, unless a store was unavailable."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log_error(error)


def log_error(error: BaseException) -> None:
    """Log an exception that nobody waits for, unless a store was unavailable or it is a cancellation."""
    if not isinstance(error, StoreUnavailable | asyncio.CancelledError):
        log.error("background task failed", exc_info=error)
