"""Tasks that come twice are done once."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from optiinfra.api.agents import TaskAnswer

REMEMBERED = 256


class TaskDesk:
    """Runs tasks and remembers the last answers by task id. A task that failed may be tried again."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, TaskAnswer] = OrderedDict()
        self._running: dict[str, asyncio.Task[TaskAnswer]] = {}

    @property
    def current(self) -> int:
        """Tasks being done now."""
        return len(self._running)

    async def do(self, task_id: str, work: Callable[[], Awaitable[TaskAnswer]]) -> TaskAnswer:
        """The answer to a task: remembered, being worked on, or worked on now. Raises what `work` raises."""
        if task_id in self._answers:
            return self._answers[task_id]
        if task_id not in self._running:
            self._running[task_id] = asyncio.create_task(self._run(task_id, work))
        # One caller hanging up must not end the work that another is waiting for.
        return await asyncio.shield(self._running[task_id])

    async def _run(self, task_id: str, work: Callable[[], Awaitable[TaskAnswer]]) -> TaskAnswer:
        try:
            answer = await work()
        finally:
            del self._running[task_id]
        self._answers[task_id] = answer
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return answer
