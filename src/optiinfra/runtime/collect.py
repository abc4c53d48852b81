"""Rounds of scraping: all engines of a customer at once, and what they did since the round before."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from optiinfra.api.common import now
from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from optiinfra.domain.latency import quantile
from optiinfra.runtime import scrape
from optiinfra.runtime.gateway import Gateway, GatewayDeployment, GatewayError
from optiinfra.runtime.scrape import Interval, Reading

SHORTEST_WINDOW_SECONDS = 0.5
"""Rates over less than this would show the jitter of our own calls."""

P95_REQUESTS = 20
"""Requests below which an interval's 95th percentile would be one request's accident."""


@dataclass(slots=True)
class _Watched:
    """What is remembered of a deployment: its engines' last readings, and what was finished since `opened`."""

    opened: float
    readings: dict[str, Reading | None] = field(default_factory=dict)
    first_seen: frozenset[str] = frozenset()
    done: Interval = field(default_factory=Interval)


class Collector:
    """Scrapes one customer's engines. Rounds do not overlap, so nothing is counted twice."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._watched: dict[str, _Watched] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def watched(self) -> frozenset[str]:
        """The deployments that were looked at so far."""
        return frozenset(self._watched)

    async def round(self, deployment_ids: Mapping[str, str]) -> TelemetryBatch:
        """Scrape every engine of the deployments that the platform knows; GatewayError when the gateway is away."""
        async with self._one_at_a_time:
            deployments = [item for item in await self._gateway.deployments() if item.name in deployment_ids]
            expositions = await asyncio.gather(*(self._expositions(item) for item in deployments))
            samples: list[Sample] = []
            latencies: list[LatencyCount] = []
            for deployment, texts in zip(deployments, expositions, strict=True):
                readings = {replica_id: scrape.parse(text) for replica_id, text in texts.items()}
                batch = self.take(deployment, deployment_ids[deployment.name], readings, time.monotonic(), now())
                samples += batch.samples
                latencies += batch.latencies
            return TelemetryBatch(samples=samples, latencies=latencies)

    async def _expositions(self, deployment: GatewayDeployment) -> dict[str, str]:
        alive = [replica.replica_id for replica in deployment.replicas if replica.state in ("ready", "draining")]
        texts = await asyncio.gather(*(self._exposition(replica_id) for replica_id in alive))
        return {replica_id: text for replica_id, text in zip(alive, texts, strict=True) if text is not None}

    async def _exposition(self, replica_id: str) -> str | None:
        try:
            return await self._gateway.exposition(replica_id)
        except GatewayError:
            return None  # an engine that is just going away; the gateway's own absence shows in `deployments`

    def take(
        self,
        deployment: GatewayDeployment,
        deployment_id: str,
        readings: Mapping[str, Reading],
        clock: float,
        at: datetime,
    ) -> TelemetryBatch:
        """Turn one round's readings of a deployment into telemetry; `clock` in (real) seconds.

        Engines that were there before us have a past that is not ours to report; those added later are counted from
        their start. Rates are for simulated seconds: here alone the gateway's speed is divided by.
        """
        watched = self._watched.get(deployment.name)
        present = frozenset(replica.replica_id for replica in deployment.replicas)
        first_look = watched is None
        if watched is None:
            watched = self._watched[deployment.name] = _Watched(opened=clock, first_seen=present)
        samples: list[Sample] = []
        latencies: list[LatencyCount] = []

        def say(figures: Mapping[str, float], replica_id: str = "") -> None:
            samples.extend(
                Sample(deployment_id=deployment_id, replica_id=replica_id, metric=metric, timestamp=at, value=value)
                for metric, value in figures.items()
            )

        for replica_id, reading in readings.items():
            say(scrape.gauges(reading), replica_id)
            if replica_id in watched.readings or replica_id not in watched.first_seen:
                interval = scrape.since(watched.readings.get(replica_id), reading)
                watched.done.add(interval)
                latencies += [
                    LatencyCount(
                        deployment_id=deployment_id,
                        replica_id=replica_id,
                        timestamp=at,
                        le=scrape.bucket_edge(edge),
                        count=count,
                    )
                    for edge, count in interval.latency.items()
                ]
            watched.readings[replica_id] = reading
        for gone in watched.readings.keys() - present:
            del watched.readings[gone]
        seconds = clock - watched.opened
        if not first_look and seconds >= SHORTEST_WINDOW_SECONDS:
            say(scrape.rates(watched.done, seconds * deployment.speed))
            if sum(watched.done.latency.values()) >= P95_REQUESTS:
                say({"p95_latency_ms": 1000.0 * quantile(watched.done.latency, 0.95)})
            watched.opened, watched.done = clock, Interval()
        return TelemetryBatch(samples=samples, latencies=latencies)
