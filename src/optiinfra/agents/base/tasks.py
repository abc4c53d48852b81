"""Idempotent execution of tasks: a task that is delivered again is not run again."""

import asyncio
from collections.abc import Awaitable, Callable

from cachetools import LRUCache

from optiinfra.api.agents import TaskAnswer

REMEMBERED_ANSWERS = 256


class TaskRunner:
    """Runs tasks and remembers the answers by task id. A task that failed may run again."""

    def __init__(self) -> None:
        self._answers: LRUCache[str, TaskAnswer] = LRUCache(REMEMBERED_ANSWERS)
        self._running: dict[str, asyncio.Task[TaskAnswer]] = {}

    @property
    def in_progress(self) -> int:
        """How many tasks are running."""
        return len(self._running)

    async def run(self, task_id: str, work: Callable[[], Awaitable[TaskAnswer]]) -> TaskAnswer:
        """The answer to a task: the remembered one, or that of the run in progress, or of a new run.

        Raises what `work` raises.
        """
        if task_id in self._answers:
            return self._answers[task_id]
        if task_id not in self._running:
            self._running[task_id] = asyncio.create_task(self._run(task_id, work))
        # When one caller disconnects, the run continues for the other callers.
        return await asyncio.shield(self._running[task_id])

    async def _run(self, task_id: str, work: Callable[[], Awaitable[TaskAnswer]]) -> TaskAnswer:
        try:
            answer = await work()
        finally:
            del self._running[task_id]
        self._answers[task_id] = answer
        return answer
