"""Concurrent calls for one result share a run: many browsers show a dashboard, and all reload it at each event."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_SLOW_SECONDS = 1.0
"""A run that takes longer, because its connection was lost, does not hold up the next one."""


class SharedRuns(Generic[T]):
    """Of each key one run at a time is in progress. Calls that come meanwhile share the next one.

    So every result is read after its call, and is never older than what the caller already knows.
    """

    def __init__(self, slow_seconds: float = _SLOW_SECONDS) -> None:
        self._slow_seconds = slow_seconds
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._next: dict[Hashable, asyncio.Task[T]] = {}

    async def run(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The result of `read`, or its exception. A cancelled call leaves the run to the others."""
        shared = self._next.get(key)
        if shared is None:
            shared = self._next[key] = asyncio.create_task(self._run(key, read))
            shared.add_done_callback(_retrieve)
        return await asyncio.shield(shared)

    async def _run(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        if (before := self._running.get(key)) is not None:
            await asyncio.wait((before,), timeout=self._slow_seconds)
        this = self._running[key] = self._next.pop(key)
        try:
            return await read()
        finally:
            if self._running.get(key) is this:
                del self._running[key]


def _retrieve(task: "asyncio.Task[Any]") -> None:
    """Done callback: an exception was raised to every call that was not cancelled, so asyncio need not log it."""
    if not task.cancelled():
        task.exception()
