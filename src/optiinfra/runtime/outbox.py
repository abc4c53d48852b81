"""Telemetry waiting to be sent: kept in order until the platform accepts it, up to a limit."""

import asyncio
import uuid
from collections import deque
from collections.abc import Collection, Sequence

import structlog

from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from optiinfra.kit.retries import DeadlineError
from optiinfra.runtime.platform import Platform, RejectedError, UnknownDeploymentsError

log = structlog.get_logger(__name__)

KEPT_BATCHES = 500
"""Batches kept while the platform is unavailable; at one batch every 2 s about a quarter of an hour."""
BATCH_ROWS = 5_000
"""Samples, and latency counts, per batch at most; the platform accepts four times as many."""


class Outbox:
    """Sends batches in order. Each has an idempotency key, so that a batch that is sent again is counted once."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: deque[tuple[str, TelemetryBatch]] = deque()
        self._put = self._done = 0
        self._changed = asyncio.Condition()

    async def put(self, samples: Sequence[Sample], latencies: Sequence[LatencyCount] = ()) -> None:
        """Add telemetry; if there are too many batches, the oldest is discarded."""
        for start in range(0, max(len(samples), len(latencies)), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            await self._add(TelemetryBatch.of(samples[part], latencies[part]))

    async def _add(self, batch: TelemetryBatch) -> None:
        async with self._changed:
            if len(self._waiting) >= KEPT_BATCHES:
                self._waiting.popleft()
                self._done += 1
                log.warning("telemetry batch discarded, platform unavailable for too long", kept=KEPT_BATCHES)
            self._waiting.append((uuid.uuid4().hex, batch))
            self._put += 1
            self._changed.notify_all()

    async def flush(self, deadline: float) -> None:
        """Wait until everything added so far was accepted or discarded; DeadlineError after `deadline` seconds."""
        mark = self._put
        try:
            async with asyncio.timeout(deadline), self._changed:
                await self._changed.wait_for(lambda: self._done >= mark)
        except TimeoutError as error:
            waiting = f"telemetry batches waiting: {mark - self._done}"
            raise DeadlineError(f"the platform accepted nothing for {deadline:.0f} s; {waiting}") from error

    async def _send(self, batch: TelemetryBatch, key: str) -> None:
        """Send a batch, without the deployments that were removed since it was made."""
        while True:
            try:
                await self._platform.send(batch, key)
            except UnknownDeploymentsError as error:
                log.info("telemetry of removed deployments discarded", deployment_ids=sorted(error.deployment_ids))
                left = _without(batch, error.deployment_ids)
                if left == batch or not (left.readings or left.latencies):
                    return
                batch = left
            except RejectedError as error:
                log.error("telemetry batch rejected", error=str(error))  # noqa: TRY400  the text is enough
                return
            else:
                return

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                key, batch = self._waiting[0]
            await self._send(batch, key)
            async with self._changed:
                if self._waiting and self._waiting[0][0] == key:
                    self._waiting.popleft()
                    self._done += 1
                self._changed.notify_all()


def _without(batch: TelemetryBatch, deployment_ids: Collection[str]) -> TelemetryBatch:
    return TelemetryBatch(
        readings=[reading for reading in batch.readings if reading.deployment_id not in deployment_ids],
        latencies=[count for count in batch.latencies if count.deployment_id not in deployment_ids],
    )
