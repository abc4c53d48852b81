"""Telemetry that runtimes send, and the series that can be queried."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from optiinfra.api.common import END_MOMENT, FIRST_MOMENT, Body, Moment, Wire

MetricType = Literal["monthly_cost", "quality_score", "p95_latency_ms", "throughput", "gpu_utilization"]

_Timestamp = Annotated[AwareDatetime, Field(ge=FIRST_MOMENT, lt=END_MOMENT)]
"""As `Moment`, but in any time zone. Its check calls no Python code, which for thousands of samples takes long."""


# Samples and counts come in thousands. Dataclasses with slots are validated and created twice as fast as models.
@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric: fractions 0..1, rates per simulated second, latencies in milliseconds.

    `replica_id` is empty for a metric of the whole deployment.
    """

    deployment_id: str
    metric: str
    timestamp: _Timestamp
    value: Annotated[float, Field(ge=0, le=1e18)]  # bounded, so that sums do not overflow
    replica_id: str = ""


@dataclass(frozen=True, slots=True)
class LatencyCount:
    """Requests in one bucket of a replica's end-to-end latency histogram since the last scrape.

    `le` is the bucket's upper edge in seconds, None for the open one.
    """

    deployment_id: str
    replica_id: str
    timestamp: _Timestamp
    le: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    count: Annotated[int, Field(ge=0, le=2**62)]


class TelemetryBatch(Body):
    """The telemetry of one scrape."""

    samples: list[Sample] = Field(default_factory=list, max_length=20_000)
    latencies: list[LatencyCount] = Field(default_factory=list, max_length=20_000)


class MetricPoint(Wire):
    """One point of a series; `score` repeats `value` for quality."""

    timestamp: Moment
    value: float
    score: float | None = None
    resource_id: str
