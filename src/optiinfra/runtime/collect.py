"""Rounds of scraping: all engines of a customer at once, and what they did since the round before."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from optiinfra.api.common import now
from optiinfra.api.telemetry import LatencyCount, Sample
from optiinfra.domain.latency import quantile
from optiinfra.runtime import scrape
from optiinfra.runtime.gateway import Gateway, GatewayDeployment, GatewayError
from optiinfra.runtime.scrape import Interval, Reading

log = structlog.get_logger(__name__)

SHORTEST_WINDOW_SECONDS = 0.5
"""Rates over less than this would show the jitter of our own calls."""

P95_REQUESTS = 20
"""Requests below which a 95th percentile would be one request's accident: they gather over several rounds."""


@dataclass(slots=True)
class _Watched:
    """What is remembered of a deployment: its engines' last readings, and what was finished since `opened`."""

    opened: float
    readings: dict[str, Reading] = field(default_factory=dict)
    first_seen: frozenset[str] = frozenset()
    done: Interval = field(default_factory=Interval)
    gathered: Interval = field(default_factory=Interval)
    """What was finished since the last 95th percentile."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of scraping brought."""

    samples: list[Sample] = field(default_factory=list)
    latencies: list[LatencyCount] = field(default_factory=list)


class Collector:
    """Scrapes one customer's engines. Rounds do not overlap, so nothing is counted twice. `clock` in (real) seconds."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float] = time.monotonic) -> None:
        self._gateway, self._clock = gateway, clock
        self._watched: dict[str, _Watched] = {}
        self._unreadable: set[str] = set()
        self._asking: Counter[str] = Counter()
        self._asked_until: dict[str, float] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def watched(self) -> frozenset[str]:
        """The deployments that were looked at so far."""
        return frozenset(self._watched)

    @contextmanager
    def leaving_out(self, deployment: str) -> Iterator[None]:
        """While we put questions of our own to a deployment, what it does is not its customers' traffic.

        Nothing is reported of any interval that such a time reaches into.
        """
        self._asking[deployment] += 1
        try:
            yield
        finally:
            self._asking[deployment] -= 1
            self._asked_until[deployment] = self._clock()

    async def round(self, deployment_ids: Mapping[str, str]) -> Round:
        """Scrape every engine of the deployments that the platform knows; GatewayError when the gateway is away."""
        async with self._one_at_a_time:
            deployments = [item for item in await self._gateway.deployments() if item.name in deployment_ids]
            # One moment for all of them, so that they can be added up; and before we fetch and read, which takes long.
            clock, at, whole = self._clock(), now(), Round()
            expositions = await asyncio.gather(*(self._expositions(item) for item in deployments))
            for deployment, texts in zip(deployments, expositions, strict=True):
                found = {replica_id: self._read(replica_id, text) for replica_id, text in texts.items()}
                readings = {replica_id: reading for replica_id, reading in found.items() if reading is not None}
                part = self.take(deployment, deployment_ids[deployment.name], readings, clock, at)
                whole.samples.extend(part.samples)
                whole.latencies.extend(part.latencies)
            return whole

    async def _expositions(self, deployment: GatewayDeployment) -> dict[str, str]:
        alive = [replica.replica_id for replica in deployment.replicas if replica.state in ("ready", "draining")]
        texts = await asyncio.gather(*(self._exposition(replica_id) for replica_id in alive))
        return {replica_id: text for replica_id, text in zip(alive, texts, strict=True) if text is not None}

    async def _exposition(self, replica_id: str) -> str | None:
        try:
            return await self._gateway.exposition(replica_id)
        except GatewayError:
            return None  # an engine that is just going away; the gateway's own absence shows in `deployments`

    def _read(self, replica_id: str, exposition: str) -> Reading | None:
        try:
            reading = scrape.parse(exposition)
        except ValueError as error:
            if replica_id not in self._unreadable:
                log.warning("an engine's metrics cannot be read", replica_id=replica_id, error=str(error))
            self._unreadable.add(replica_id)
            return None
        self._unreadable.discard(replica_id)
        return reading

    def take(
        self,
        deployment: GatewayDeployment,
        deployment_id: str,
        readings: Mapping[str, Reading],
        clock: float,
        at: datetime,
    ) -> Round:
        """Turn one round's readings of a deployment, fetched from `clock` on, into telemetry.

        Engines that were there before us have a past that is not ours to report; those added later are counted from
        their start. Rates are for simulated seconds: here alone the gateway's speed is divided by.
        """
        watched = self._watched.get(deployment.name)
        present = frozenset(replica.replica_id for replica in deployment.replicas)
        first_look = watched is None
        if watched is None:
            watched = self._watched[deployment.name] = _Watched(opened=clock, first_seen=present)
        if self._asking[deployment.name] or self._asked_until.get(deployment.name, -math.inf) >= watched.opened:
            watched.readings, watched.first_seen = dict(readings), present
            watched.opened, watched.done = clock, Interval()
            return Round()
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
                watched.gathered.add(interval)
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
            if sum(watched.gathered.latency.values()) >= P95_REQUESTS:
                say({"p95_latency_ms": 1000.0 * quantile(watched.gathered.latency, 0.95)})
                watched.gathered = Interval()
            watched.opened, watched.done = clock, Interval()
        return Round(samples, latencies)
