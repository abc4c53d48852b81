"""Tasks that outlive the request that started them. Work that must survive a crash is a workflow instead."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import Any

import structlog

from optiinfra.kit.tasks import counted
from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_tasks: set[asyncio.Task[Any]] = set()
_in_progress: Counter[str] = Counter()


def start_in_background(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine as a task. Its exception is logged, as a warning if a store was unavailable."""
    task = asyncio.create_task(work)
    _tasks.add(task)  # the event loop keeps only a weak reference
    task.add_done_callback(_log_failure)


def in_progress(name: str) -> AbstractContextManager[None]:
    """Mark work as in progress while the context lasts; `name` says what is done for which customer."""
    return counted(_in_progress, name)


def is_in_progress(name: str) -> bool:
    """Whether this process does that work now, so that it need not be started a second time."""
    return name in _in_progress


def _log_failure(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.ERROR
        log.log(level, "background task failed", task=task.get_coro(), exc_info=error)
