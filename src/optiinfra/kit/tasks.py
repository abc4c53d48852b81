"""Asyncio tasks that nobody waits for any more."""

import asyncio
from typing import Any

import structlog

from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

_cancelled: "set[asyncio.Future[Any]]" = set()


def cancel_in_background(task: "asyncio.Future[Any]") -> None:
    """Cancel a task without waiting for its end: the client of a store that hangs takes seconds to disconnect."""
    _cancelled.add(task)
    task.add_done_callback(_cancelled.discard)
    task.add_done_callback(log_failure)
    task.cancel()


def log_failure(task: "asyncio.Future[Any]") -> None:
    """Done callback: log the exception of a task that nobody waits for, unless a store was unavailable."""
    if task.cancelled() or (error := task.exception()) is None or isinstance(error, StoreUnavailable):
        return
    log.error("background task failed", exc_info=error)
