"""Work that outlives the request that began it, within this process. What must survive a crash is a workflow."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_running: set[asyncio.Task[Any]] = set()
_named: Counter[str] = Counter()


def start_in_background(work: Coroutine[Any, Any, None]) -> None:
    """Run it; an exception is logged, for there is nobody to raise it to. A lost store is no defect of ours."""
    task = asyncio.create_task(work)
    _running.add(task)  # the loop itself keeps no reference
    task.add_done_callback(_ended)


@contextmanager
def under_way(name: str) -> Iterator[None]:
    """Let `is_under_way` know of the work within, by a name that says what is done and for whom."""
    _named[name] += 1
    try:
        yield
    finally:
        _named[name] -= 1
        if not _named[name]:
            del _named[name]


def is_under_way(name: str) -> bool:
    """Whether somebody in this process is at that work: who finds it undone need not begin it once more."""
    return name in _named


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.ERROR
        log.log(level, "background work failed", work=task.get_coro(), exc_info=error)
