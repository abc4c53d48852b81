"""Latency from histograms: quantiles, and a sequential test of the 95th percentile."""

import math
from collections.abc import Mapping
from statistics import NormalDist

from optiinfra.domain.verdict import ERROR_RATE, Verdict

MIN_OBSERVATIONS = 100
"""Least number of requests before a stage's 95th percentile is judged."""


def quantile(counts: Mapping[float, float], q: float) -> float:
    """The `q`-quantile (0..1) of a histogram, interpolated within its bucket as Prometheus does.

    `counts` maps a bucket's upper edge (seconds; `inf` for the last) to the number of observations in that
    bucket alone. A quantile in the last bucket is the last finite edge.
    """
    total = sum(counts.values())
    if total <= 0:
        raise ValueError("the histogram holds no observation")
    rank, below, lower_edge = q * total, 0.0, 0.0
    for edge in sorted(counts):
        inside = counts[edge]
        if below + inside >= rank and inside > 0:
            if math.isinf(edge):
                return lower_edge
            return lower_edge + (edge - lower_edge) * (rank - below) / inside
        below += inside
        if not math.isinf(edge):
            lower_edge = edge
    return lower_edge


def p95_bounds(counts: Mapping[float, float], error: float = ERROR_RATE) -> tuple[float, float, float]:
    """Estimate of the 95th percentile with one-sided bounds (estimate, lower, upper), seconds.

    The bounds are quantiles at the ranks that the normal approximation of the binomial gives around 0.95.
    """
    margin = NormalDist().inv_cdf(1.0 - error) * math.sqrt(0.95 * 0.05 / sum(counts.values()))
    return (
        quantile(counts, 0.95),
        quantile(counts, 0.95 - margin),
        quantile(counts, min(1.0, 0.95 + margin)),
    )


def judge(counts: Mapping[float, float], slo_p95_ms: float, look: int) -> Verdict:
    """Perform interim analysis number `look` (from 1) of a stage's latency against its objective (milliseconds).

    Alpha spending: the analyses get 1/2, 1/6, 1/12, ... of the error rate, which sum to at most the whole, however
    many there are. Requests are assumed to be spread evenly within a bucket, as Prometheus does.
    """
    seen = int(sum(counts.values()))
    if seen < MIN_OBSERVATIONS:
        return Verdict("continue", f"{seen} of {MIN_OBSERVATIONS} requests seen", seen)
    p95, low, high = (1000.0 * value for value in p95_bounds(counts, ERROR_RATE / (look * (look + 1))))
    text = f"p95 {p95:,.0f} ms ({low:,.0f}..{high:,.0f}) over {seen} requests; objective {slo_p95_ms:,.0f} ms"
    decision = "pass" if high <= slo_p95_ms else "fail" if low > slo_p95_ms else "continue"
    return Verdict(decision, text, seen, p95, low, high)  # type: ignore[arg-type]  # mypy widens the literals
