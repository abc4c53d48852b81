"""Scraping of all engines of a customer, and the telemetry of what they did since the last scrape."""

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
"""Rates over a shorter time would show the jitter of our own calls."""

P95_REQUESTS = 20
"""Fewest requests for a 95th percentile; with less traffic they accumulate over several scrapes."""


@dataclass(slots=True)
class _DeploymentState:
    """A deployment's last readings by replica, and what it finished since `window_start` (seconds of the clock)."""

    window_start: float
    readings: dict[str, Reading] = field(default_factory=dict)
    initial_replicas: frozenset[str] = frozenset()
    """Those present at the first scrape, which may have counted requests before it."""
    finished: Interval = field(default_factory=Interval)
    finished_since_p95: Interval = field(default_factory=Interval)

    def restart_window(self, clock: float) -> None:
        self.window_start, self.finished = clock, Interval()


@dataclass(frozen=True, slots=True)
class Scraped:
    """The telemetry of one scrape."""

    samples: list[Sample] = field(default_factory=list)
    latencies: list[LatencyCount] = field(default_factory=list)


class Collector:
    """Scrapes one customer's engines, one scrape at a time. `clock` gives (real) seconds."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float] = time.monotonic) -> None:
        self._gateway, self._clock = gateway, clock
        self._states: dict[str, _DeploymentState] = {}
        self._unreadable: set[str] = set()
        self._own_requests: Counter[str] = Counter()
        self._own_requests_until: dict[str, float] = {}
        self._lock = asyncio.Lock()

    @property
    def deployments(self) -> frozenset[str]:
        """Names of the deployments that were scraped so far."""
        return frozenset(self._states)

    @contextmanager
    def excluding_own_requests(self, deployment: str) -> Iterator[None]:
        """Keep our own requests to a deployment, such as golden prompts, out of its customers' traffic.

        No rates are reported of any interval that overlaps.
        """
        self._own_requests[deployment] += 1
        try:
            yield
        finally:
            self._own_requests[deployment] -= 1
            self._own_requests_until[deployment] = self._clock()

    async def scrape(self, deployment_ids: Mapping[str, str]) -> Scraped:
        """Scrape all engines of the deployments with a platform id; GatewayError if the gateway does not answer."""
        async with self._lock:
            deployments = [item for item in await self._gateway.deployments() if item.name in deployment_ids]
            # One timestamp for all, so that figures can be added up; from before fetching and parsing, which take time.
            clock, at, scraped = self._clock(), now(), Scraped()
            expositions = await asyncio.gather(*(self._expositions(item) for item in deployments))
            for deployment, texts in zip(deployments, expositions, strict=True):
                parsed = {replica_id: self._parse(replica_id, text) for replica_id, text in texts.items()}
                readings = {replica_id: reading for replica_id, reading in parsed.items() if reading is not None}
                part = self.process(deployment, deployment_ids[deployment.name], readings, clock, at)
                scraped.samples.extend(part.samples)
                scraped.latencies.extend(part.latencies)
            return scraped

    async def _expositions(self, deployment: GatewayDeployment) -> dict[str, str]:
        alive = [replica.replica_id for replica in deployment.replicas if replica.state in ("ready", "draining")]
        texts = await asyncio.gather(*(self._exposition(replica_id) for replica_id in alive))
        return {replica_id: text for replica_id, text in zip(alive, texts, strict=True) if text is not None}

    async def _exposition(self, replica_id: str) -> str | None:
        try:
            return await self._gateway.exposition(replica_id)
        except GatewayError:
            return None  # the engine is being removed; an unavailable gateway shows when deployments are listed

    def _parse(self, replica_id: str, exposition: str) -> Reading | None:
        try:
            reading = scrape.parse(exposition)
        except ValueError as error:
            if replica_id not in self._unreadable:
                log.warning("engine metrics unreadable", replica_id=replica_id, error=str(error))
            self._unreadable.add(replica_id)
            return None
        self._unreadable.discard(replica_id)
        return reading

    def process(
        self,
        deployment: GatewayDeployment,
        deployment_id: str,
        readings: Mapping[str, Reading],
        clock: float,
        at: datetime,
    ) -> Scraped:
        """Turn one scrape's readings of a deployment, begun at `clock`, into telemetry with timestamp `at`.

        Replicas that were there at the first scrape are counted from that scrape on, later ones from their start. Rates
        are per simulated second: real seconds times the gateway's speed.
        """
        state = self._states.get(deployment.name)
        present = frozenset(replica.replica_id for replica in deployment.replicas)
        first_scrape = state is None
        if state is None:
            state = self._states[deployment.name] = _DeploymentState(window_start=clock, initial_replicas=present)
        own_requests_until = self._own_requests_until.get(deployment.name, -math.inf)
        if self._own_requests[deployment.name] or own_requests_until >= state.window_start:
            state.readings, state.initial_replicas = dict(readings), present
            state.restart_window(clock)
            return Scraped()
        samples: list[Sample] = []
        latencies: list[LatencyCount] = []

        def add(figures: Mapping[str, float], replica_id: str = "") -> None:
            samples.extend(
                Sample(deployment_id=deployment_id, replica_id=replica_id, metric=metric, timestamp=at, value=value)
                for metric, value in figures.items()
            )

        for replica_id, reading in readings.items():
            add(scrape.gauges(reading), replica_id)
            if replica_id in state.readings or replica_id not in state.initial_replicas:
                interval = scrape.since(state.readings.get(replica_id), reading)
                state.finished.add(interval)
                state.finished_since_p95.add(interval)
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
            state.readings[replica_id] = reading
        for removed in state.readings.keys() - present:
            del state.readings[removed]
        seconds = clock - state.window_start
        if not first_scrape and seconds >= SHORTEST_WINDOW_SECONDS:
            add(scrape.rates(state.finished, seconds * deployment.speed))
            if sum(state.finished_since_p95.latency.values()) >= P95_REQUESTS:
                add({"p95_latency_ms": 1000.0 * quantile(state.finished_since_p95.latency, 0.95)})
                state.finished_since_p95 = Interval()
            state.restart_window(clock)
        return Scraped(samples, latencies)
