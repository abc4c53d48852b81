"""Parsing of an engine's Prometheus exposition, and the difference between two scrapes. No I/O.

Metric names are those of vLLM (vllm/v1/metrics/loggers.py) and of the DCGM exporter. Counters start at 0 again when
an engine restarts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

SUMS = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:request_success_total": "finished",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "output_tokens",
    "vllm:prefix_cache_queries_total": "prefix_queries",
    "vllm:prefix_cache_hits_total": "prefix_hits",
    "vllm:e2e_request_latency_seconds_sum": "latency_seconds",
}
MEANS = {"vllm:kv_cache_usage_perc": "kv_cache_usage", "DCGM_FI_DEV_GPU_UTIL": "gpu_percent"}
LATENCY = "vllm:e2e_request_latency_seconds_bucket"
_PARSED = (*SUMS, *MEANS, LATENCY)
_LARGEST = 1e15
"""Larger values are implausible; up to it, sums and quotients fit into telemetry's numbers."""
_COUNTERS = ("finished", "prompt_tokens", "output_tokens", "prefix_queries", "prefix_hits", "latency_seconds")


@dataclass(frozen=True, slots=True)
class Reading:
    """One scrape of one engine.

    `values` are gauges and counters by our names. `latency` is the histogram of end-to-end latency, not cumulative:
    requests by upper bucket edge in seconds, `inf` for the last.
    """

    values: Mapping[str, float]
    latency: Mapping[float, int]


@dataclass(slots=True)
class Interval:
    """What one or more engines finished between two scrapes: requests, tokens, sum of latencies and their histogram.

    A counter is NaN if one of the engines did not expose it.
    """

    finished: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    prefix_queries: float = 0.0
    prefix_hits: float = 0.0
    latency_seconds: float = 0.0
    latency: dict[float, int] = field(default_factory=dict)

    def add(self, other: "Interval") -> None:
        """Add the interval of another engine, or a later one."""
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for edge, count in other.latency.items():
            self.latency[edge] = self.latency.get(edge, 0) + count


def parse(exposition: str) -> Reading:
    """Parse an exposition; ValueError if it is invalid. Metrics that are missing or implausible are left out."""
    # An engine exposes many more metrics than these, and parsing takes long.
    wanted = "\n".join(line for line in exposition.split("\n") if line.startswith(_PARSED))
    sums: dict[str, float] = {}
    means: dict[str, list[float]] = {}
    cumulative: dict[float, float] = {}
    for family in text_string_to_metric_families(wanted or exposition):
        for sample in family.samples:
            if sample.name == LATENCY:
                edge = float(sample.labels.get("le", "missing"))
                cumulative[edge] = cumulative.get(edge, 0.0) + sample.value
            elif not 0.0 <= sample.value <= _LARGEST:
                continue
            elif name := SUMS.get(sample.name):
                sums[name] = sums.get(name, 0.0) + sample.value
            elif name := MEANS.get(sample.name):
                means.setdefault(name, []).append(sample.value)
    values = sums | {name: sum(seen) / len(seen) for name, seen in means.items()}
    return Reading(values, _by_bucket(cumulative))


def _by_bucket(cumulative: Mapping[float, float]) -> dict[float, int]:
    if not all(edge > 0 for edge in cumulative):  # also false for NaN
        raise ValueError(f"{LATENCY} has a bucket edge that is not a positive number of seconds")
    latency, below = {}, 0.0
    for edge in sorted(cumulative):
        if not below <= cumulative[edge] <= _LARGEST:
            raise ValueError(f"{LATENCY} counts {cumulative[edge]:g} up to {edge:g} s, after {below:g}")
        latency[edge], below = round(cumulative[edge]) - round(below), cumulative[edge]
    return latency


def gauges(reading: Reading) -> dict[str, float]:
    """The gauges of one engine under the platform's metric names; fractions are 0..1."""
    values, shown = reading.values, {}
    for ours, name, scale in (
        ("gpu_utilization", "gpu_percent", 0.01),
        ("kv_cache_usage", "kv_cache_usage", 1.0),
        ("requests_running", "running", 1.0),
        ("requests_waiting", "waiting", 1.0),
    ):
        if name in values:
            shown[ours] = values[name] * scale
    return shown


def since(previous: Reading | None, current: Reading) -> Interval:
    """What the engine finished between two scrapes; if it is new or has restarted, everything since its start."""
    if previous is None or _restarted(previous, current):
        previous = Reading(dict.fromkeys(_COUNTERS, 0.0), dict.fromkeys(current.latency, 0))
    counted = {name: current.values.get(name, math.nan) - previous.values.get(name, math.nan) for name in _COUNTERS}
    grown = {edge: count - previous.latency.get(edge, count) for edge, count in current.latency.items()}
    # An empty bucket below a non-empty one is kept, because its edge is the lower edge of the other.
    latency = {
        edge: grown[edge] for edge, above in pairwise([*sorted(grown), math.inf]) if grown[edge] or grown.get(above)
    }
    return Interval(**counted, latency=latency)


def rates(interval: Interval, seconds: float) -> dict[str, float]:
    """A deployment's rates over an interval of `seconds` simulated seconds: requests per second, means per request.

    Unknown figures are left out.
    """
    shown = {"throughput": interval.finished / seconds}
    if interval.finished > 0:
        shown["prompt_tokens_per_request"] = interval.prompt_tokens / interval.finished
        shown["output_tokens_per_request"] = interval.output_tokens / interval.finished
        shown["mean_latency_ms"] = 1000.0 * interval.latency_seconds / interval.finished
    if interval.prefix_queries > 0:
        shown["prefix_cache_hit_rate"] = interval.prefix_hits / interval.prefix_queries
    return {metric: value for metric, value in shown.items() if not math.isnan(value)}


def _restarted(previous: Reading, current: Reading) -> bool:
    """Whether any counter decreased, which only a restart does. Missing counters are ignored."""
    decreased = any(current.values.get(name, math.inf) < previous.values.get(name, 0.0) for name in _COUNTERS)
    return decreased or any(current.latency.get(edge, math.inf) < count for edge, count in previous.latency.items())


def bucket_edge(edge: float) -> float | None:
    """The edge as sent in telemetry: None for the open bucket."""
    return None if math.isinf(edge) else edge
