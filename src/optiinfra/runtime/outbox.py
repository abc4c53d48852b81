"""Telemetry on its way to the platform: kept in order until accepted, within bounds."""

import asyncio
import uuid
from collections import deque

import structlog

from optiinfra.api.telemetry import TelemetryBatch
from optiinfra.runtime.platform import Platform, RejectedError

log = structlog.get_logger(__name__)

KEPT_BATCHES = 500
"""What is kept while the platform is away; at one batch every 2 s about a quarter of an hour."""


class Outbox:
    """Batches in the order they were put in. Each has a key of its own, so that one accepted is never counted twice."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: deque[tuple[str, TelemetryBatch]] = deque()
        self._put = self._done = 0
        self._changed = asyncio.Condition()

    async def put(self, batch: TelemetryBatch) -> None:
        """Keep a batch until it is accepted; the oldest is given up when there are too many."""
        if not batch.samples and not batch.latencies:
            return
        async with self._changed:
            if len(self._waiting) >= KEPT_BATCHES:
                self._waiting.popleft()
                self._done += 1
                log.warning("telemetry given up: the platform has been away too long", kept=KEPT_BATCHES)
            self._waiting.append((uuid.uuid4().hex, batch))
            self._put += 1
            self._changed.notify_all()

    async def flush(self) -> None:
        """Wait until everything that was put in so far has been accepted."""
        mark = self._put
        async with self._changed:
            await self._changed.wait_for(lambda: self._done >= mark)

    async def run(self) -> None:
        """Send for ever."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                key, batch = self._waiting[0]
            try:
                await self._platform.send(batch, key)
            except RejectedError as error:
                log.error("telemetry rejected", error=str(error))  # noqa: TRY400  nothing to trace: it is their answer
            async with self._changed:
                if self._waiting and self._waiting[0][0] == key:
                    self._waiting.popleft()
                    self._done += 1
                self._changed.notify_all()
