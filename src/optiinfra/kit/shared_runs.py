"""Concurrent calls for one result share a run: many browsers show a dashboard, and all reload it at each event."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from optiinfra.kit.tasks import log_failure

T = TypeVar("T")


class SharedRuns(Generic[T]):
    """Of each key one run at a time is in progress. Calls that come meanwhile share the next one.

    So every result is read after its call, and is never older than what the caller already knows.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._next: dict[Hashable, asyncio.Task[T]] = {}

    async def run(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The result of `read`, or its exception. A cancelled call leaves the run to the others."""
        shared = self._next.get(key)
        if shared is None:
            shared = self._next[key] = asyncio.create_task(self._run(key, read, self._running.get(key)))
            shared.add_done_callback(log_failure)
        return await asyncio.shield(shared)

    async def _run(self, key: Hashable, read: Callable[[], Awaitable[T]], before: "asyncio.Task[T] | None") -> T:
        if before is not None:
            await asyncio.wait((before,))
        self._running[key] = self._next.pop(key)
        try:
            return await read()
        finally:
            del self._running[key]
