"""Work that outlives the request that began it, within this process. What must survive a crash is a workflow."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import structlog

from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_running: set[asyncio.Task[Any]] = set()


def start_in_background(work: Coroutine[Any, Any, None]) -> None:
    """Run it; an exception is logged, for there is nobody to raise it to. A lost store is no defect of ours."""
    task = asyncio.create_task(work)
    _running.add(task)  # the loop itself keeps no reference
    task.add_done_callback(_ended)


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.ERROR
        log.log(level, "background work failed", work=task.get_coro(), exc_info=error)
