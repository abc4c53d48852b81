"""A deployment's load as measured by telemetry."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from optiinfra.agents.base.sources import TelemetryReader
from optiinfra.api.common import now
from optiinfra.kit.retries import DeadlineError, retry_until_deadline

RECENT = timedelta(minutes=5)
HISTORY = timedelta(days=7)
FIRST_MEASUREMENT_SECONDS = 5.0
"""How long to wait for the first measurement of a runtime that has just connected."""


@dataclass(frozen=True, slots=True)
class Load:
    """A deployment's load: requests per second, milliseconds, tokens per request. None where it was not measured.

    `in_engine` is the mean number of requests running or waiting in a replica, `busiest` the mean request rate of the
    last week's busiest hour.
    """

    requests_per_second: float | None
    busiest: float | None
    p95_latency_ms: float | None
    in_engine: float | None
    prompt_tokens: float | None
    output_tokens: float | None
    cache_hit_rate: float
    gpu_utilization: float | None
    kv_cache_usage: float | None
    waiting: float | None
    mean_latency_ms: float | None = None


def load_of(recent: Mapping[str, float], history: Mapping[str, float], busiest: float | None) -> Load:
    """Combine recent means with those of the whole history, which fill in what was not measured recently."""

    def measured(metric: str) -> float | None:
        return recent.get(metric, history.get(metric))

    running, waiting = recent.get("requests_running"), recent.get("requests_waiting")
    return Load(
        requests_per_second=measured("throughput"),
        busiest=busiest,
        p95_latency_ms=measured("p95_latency_ms"),
        in_engine=None if running is None else running + (waiting or 0.0),
        prompt_tokens=measured("prompt_tokens_per_request"),
        output_tokens=measured("output_tokens_per_request"),
        cache_hit_rate=recent.get("prefix_cache_hit_rate", 0.0),
        gpu_utilization=measured("gpu_utilization"),
        kv_cache_usage=recent.get("kv_cache_usage"),
        waiting=waiting,
        mean_latency_ms=recent.get("mean_latency_ms"),
    )


async def observe(telemetry: TelemetryReader, customer_id: str, deployment_id: str) -> Load:
    """The deployment's load now, and in its busiest hour of the last seven days."""

    async def recent_means() -> Mapping[str, float]:
        means = await telemetry.means(customer_id, deployment_id, now() - RECENT)
        idle = means.get("throughput") == 0.0
        wanted = {"requests_running", "throughput"} | (set() if idle else {"output_tokens_per_request"})
        if wanted - means.keys():
            raise LookupError(f"measured so far: {', '.join(sorted(means)) or 'nothing'}")
        return means

    try:
        recent = await retry_until_deadline(
            recent_means, f"telemetry of {deployment_id}", FIRST_MEASUREMENT_SECONDS, interval=0.2
        )
    except DeadlineError:
        recent = await telemetry.means(customer_id, deployment_id, now() - RECENT)
    history = await telemetry.means(customer_id, deployment_id, now() - HISTORY)
    return load_of(recent, history, await telemetry.busiest_hour(customer_id, deployment_id, now() - HISTORY))
