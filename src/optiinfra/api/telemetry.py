"""Telemetry that runtimes send, and the series that can be queried."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, Self

from msgspec import Meta
from pydantic import AwareDatetime, Field, model_validator
from pydantic.dataclasses import dataclass

from optiinfra.api.common import END_MOMENT, FIRST_MOMENT, WITHOUT_NUL, Body, Moment, Wire

MetricType = Literal["monthly_cost", "quality_score", "p95_latency_ms", "throughput", "gpu_utilization"]
"""What can be queried. Costs and quality are the platform's own figures, the others come from runtimes."""

RUNTIME_METRICS = frozenset(
    {
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
    }
)
"""The metrics that a runtime may send: what its scrapes measure."""

MOST_ROWS = 20_000
"""How many samples, and latency counts, one batch may have."""
MOST_VALUES = 100
"""How many metrics one reading may have."""

# The bounds of these are given to pydantic (Field) and to msgspec (Meta), which each ignore those of the other.
_Timestamp = Annotated[datetime, AwareDatetime, Field(ge=FIRST_MOMENT, lt=END_MOMENT), Meta(tz=True)]
"""As `Moment`, but in any time zone. Its check calls no Python code, which for thousands of samples takes long."""
_Identifier = Annotated[str, Field(max_length=200, pattern=WITHOUT_NUL), Meta(max_length=200)]
"""An id or a name. msgspec would match the pattern in Python, string by string: `telemetry.parsing` does it at once."""
_Value = Annotated[float, Field(ge=0, le=1e18), Meta(ge=0, le=1e18)]
"""Bounded, so that sums do not overflow."""
_Edge = Annotated[float, Field(gt=0, le=1e18), Meta(gt=0, le=1e18)]
_Count = Annotated[int, Field(ge=0, le=2**62), Meta(ge=0, le=2**62)]
_Values = Annotated[dict[_Identifier, _Value], Field(max_length=MOST_VALUES), Meta(max_length=MOST_VALUES)]
_ReadingKey = tuple[str, str, datetime]
"""Deployment, replica and time."""


# Readings and counts come in thousands. Dataclasses with slots are validated and created twice as fast as models.
@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one of the RUNTIME_METRICS: fractions 0..1, rates per simulated second, latencies in milliseconds.

    `replica_id` is empty for a metric of the whole deployment.
    """

    deployment_id: _Identifier
    metric: _Identifier
    timestamp: _Timestamp
    value: _Value
    replica_id: _Identifier = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """All samples of one moment, by metric. Sent one by one, ids and timestamps would be most of a batch."""

    deployment_id: _Identifier
    timestamp: _Timestamp
    values: _Values
    replica_id: _Identifier = ""


@dataclass(frozen=True, slots=True)
class LatencyCount:
    """Requests in one bucket of a replica's end-to-end latency histogram since the last scrape.

    `le` is the bucket's upper edge in seconds, None for the open one.
    """

    deployment_id: _Identifier
    replica_id: _Identifier
    timestamp: _Timestamp
    le: _Edge | None
    count: _Count


class TelemetryBatch(Body):
    """The telemetry of one scrape."""

    # At the first error: reporting thousands takes long.
    readings: list[Reading] = Field(default_factory=list, max_length=MOST_ROWS, fail_fast=True)
    latencies: list[LatencyCount] = Field(default_factory=list, max_length=MOST_ROWS, fail_fast=True)

    @classmethod
    def of(cls, samples: Iterable[Sample], latencies: Iterable[LatencyCount] = ()) -> Self:
        """The batch of these. Samples of one moment share a reading; a second one of the same metric gets another."""
        grouped: list[tuple[_ReadingKey, dict[str, float]]] = []
        latest: dict[_ReadingKey, dict[str, float]] = {}
        for sample in samples:
            moment = sample.deployment_id, sample.replica_id, sample.timestamp
            values = latest.get(moment)
            if values is None or sample.metric in values:
                values = latest[moment] = {}
                grouped.append((moment, values))
            values[sample.metric] = sample.value
        readings = [Reading(deployment, at, values, replica) for (deployment, replica, at), values in grouped]
        return cls(readings=readings, latencies=list(latencies))

    @model_validator(mode="after")
    def _has_not_too_many_samples(self) -> Self:
        if sum(len(reading.values) for reading in self.readings) > MOST_ROWS:
            raise ValueError(f"the readings may have at most {MOST_ROWS} values together")
        return self


class MetricPoint(Wire):
    """One point of a series; `score` repeats `value` for quality."""

    timestamp: Moment
    value: float
    score: float | None = None
    resource_id: str
