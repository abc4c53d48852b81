"""Telemetry on its way to the platform: kept in order until accepted, within bounds."""

import asyncio
import uuid
from collections import deque
from collections.abc import Sequence

import structlog

from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from optiinfra.kit.retries import DeadlineError
from optiinfra.runtime.platform import Platform, RejectedError

log = structlog.get_logger(__name__)

KEPT_BATCHES = 500
"""What is kept while the platform is away; at one batch every 2 s about a quarter of an hour."""
BATCH_ROWS = 5_000
"""Samples, and counts, that a batch holds at most; the platform takes four times as many."""


class Outbox:
    """Batches in the order they were put in. Each has a key of its own, so that one accepted is never counted twice."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: deque[tuple[str, TelemetryBatch]] = deque()
        self._put = self._done = 0
        self._changed = asyncio.Condition()

    async def put(self, samples: Sequence[Sample], latencies: Sequence[LatencyCount] = ()) -> None:
        """Keep telemetry until it is accepted; the oldest batch is given up when there are too many."""
        for start in range(0, max(len(samples), len(latencies)), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            await self._keep(TelemetryBatch(samples=list(samples[part]), latencies=list(latencies[part])))

    async def _keep(self, batch: TelemetryBatch) -> None:
        async with self._changed:
            if len(self._waiting) >= KEPT_BATCHES:
                self._waiting.popleft()
                self._done += 1
                log.warning("telemetry given up: the platform has been away too long", kept=KEPT_BATCHES)
            self._waiting.append((uuid.uuid4().hex, batch))
            self._put += 1
            self._changed.notify_all()

    async def flush(self, deadline: float) -> None:
        """Wait until all that was put in so far was accepted or given up; DeadlineError after so many seconds."""
        mark = self._put
        try:
            async with asyncio.timeout(deadline), self._changed:
                await self._changed.wait_for(lambda: self._done >= mark)
        except TimeoutError as error:
            waiting = f"batches of telemetry that wait: {mark - self._done}"
            raise DeadlineError(f"the platform took nothing for {deadline:.0f} s; {waiting}") from error

    async def run(self) -> None:
        """Send for ever."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                key, batch = self._waiting[0]
            try:
                await self._platform.send(batch, key)
            except RejectedError as error:
                log.error("telemetry given up", error=str(error))  # noqa: TRY400  nothing to trace: it is their answer
            async with self._changed:
                if self._waiting and self._waiting[0][0] == key:
                    self._waiting.popleft()
                    self._done += 1
                self._changed.notify_all()
