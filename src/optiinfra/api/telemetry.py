"""Telemetry that runtimes send, and the series that can be queried."""

from datetime import datetime
from typing import Annotated, Literal, get_args

from msgspec import Meta
from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from optiinfra.api.common import END_MOMENT, FIRST_MOMENT, WITHOUT_NUL, Body, Moment, Wire

MetricType = Literal["monthly_cost", "quality_score", "p95_latency_ms", "throughput", "gpu_utilization"]
"""What can be queried. Costs and quality are the platform's own figures, the others come from runtimes."""

RuntimeMetric = Literal[
    "throughput",
    "p95_latency_ms",
    "mean_latency_ms",
    "prompt_tokens_per_request",
    "output_tokens_per_request",
    "prefix_cache_hit_rate",
    "gpu_utilization",
    "kv_cache_usage",
    "requests_running",
    "requests_waiting",
]
RUNTIME_METRICS: frozenset[str] = frozenset(get_args(RuntimeMetric))
"""The metrics that a runtime may send: what its scrapes measure."""

MOST_ROWS = 20_000
"""How many samples, and latency counts, one batch may have."""

_Timestamp = Annotated[datetime, AwareDatetime, Field(ge=FIRST_MOMENT, lt=END_MOMENT)]
"""As `Moment`, but in any time zone. Its check calls no Python code, which for thousands of samples takes long."""

# The bounds of these are given to pydantic (Field) and to msgspec (Meta), which each ignore those of the other.
Identifier = Annotated[str, Field(max_length=200, pattern=WITHOUT_NUL), Meta(max_length=200)]
"""An id or a name. msgspec would match the pattern in Python, string by string: `telemetry.parsing` does it at once."""
Value = Annotated[float, Field(ge=0, le=1e18), Meta(ge=0, le=1e18)]
"""Bounded, so that sums do not overflow."""
Edge = Annotated[float, Field(gt=0, le=1e18), Meta(gt=0, le=1e18)]
Count = Annotated[int, Field(ge=0, le=2**62), Meta(ge=0, le=2**62)]


# Samples and counts come in thousands. Dataclasses with slots are validated and created twice as fast as models.
@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one of the RUNTIME_METRICS: fractions 0..1, rates per simulated second, latencies in milliseconds.

    `replica_id` is empty for a metric of the whole deployment.
    """

    deployment_id: Identifier
    metric: Identifier
    timestamp: _Timestamp
    value: Value
    replica_id: Identifier = ""


@dataclass(frozen=True, slots=True)
class LatencyCount:
    """Requests in one bucket of a replica's end-to-end latency histogram since the last scrape.

    `le` is the bucket's upper edge in seconds, None for the open one.
    """

    deployment_id: Identifier
    replica_id: Identifier
    timestamp: _Timestamp
    le: Edge | None
    count: Count


class TelemetryBatch(Body):
    """The telemetry of one scrape."""

    # At the first error: reporting thousands takes long.
    samples: list[Sample] = Field(default_factory=list, max_length=MOST_ROWS, fail_fast=True)
    latencies: list[LatencyCount] = Field(default_factory=list, max_length=MOST_ROWS, fail_fast=True)


class MetricPoint(Wire):
    """One point of a series; `score` repeats `value` for quality."""

    timestamp: Moment
    value: float
    score: float | None = None
    resource_id: str
