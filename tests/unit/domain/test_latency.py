"""Quantiles of histograms, and the sequential test of the 95th percentile."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain import latency
from optiinfra.domain.verdict import ERROR_RATE

EDGES = (1.0, 2.5, 5.0, 10.0, math.inf)


def test_quantile_is_interpolated_within_its_bucket() -> None:
    assert latency.quantile({1.0: 50, 2.0: 50}, 0.75) == pytest.approx(1.5)
    assert latency.quantile({1.0: 100}, 0.5) == pytest.approx(0.5)


def test_quantile_in_the_open_bucket_is_its_lower_edge() -> None:
    assert latency.quantile({1.0: 10, 10.0: 0, math.inf: 90}, 0.95) == 10.0


def test_quantile_of_empty_histogram_raises() -> None:
    with pytest.raises(ValueError, match="no observation"):
        latency.quantile({1.0: 0.0}, 0.95)


@given(st.lists(st.integers(0, 1000), min_size=len(EDGES), max_size=len(EDGES)), st.floats(0.01, 0.98))
def test_quantile_grows_with_its_rank(counts: list[int], q: float) -> None:
    if sum(counts) == 0:
        return
    histogram = dict(zip(EDGES, map(float, counts), strict=True))
    assert latency.quantile(histogram, q) <= latency.quantile(histogram, q + 0.01) + 1e-9


def test_p95_bounds_contain_the_estimate_and_narrow_with_more_requests() -> None:
    few = latency.p95_bounds({1.0: 80, 2.0: 19, 5.0: 1})
    many = latency.p95_bounds({1.0: 8000, 2.0: 1900, 5.0: 100})
    for estimate, low, high in (few, many):
        assert low <= estimate <= high
    assert many[2] - many[1] < few[2] - few[1]


def test_judge_with_too_few_requests_continues() -> None:
    verdict = latency.judge({0.1: latency.MIN_OBSERVATIONS - 1}, slo_p95_ms=1000, look=1)
    assert verdict.decision == "continue"
    assert verdict.estimate is None


def test_judge_passes_fast_fails_slow_and_continues_between() -> None:
    assert latency.judge({1.0: 990, 2.0: 10}, slo_p95_ms=2000, look=1).decision == "pass"
    assert latency.judge({1.0: 500, 10.0: 500}, slo_p95_ms=2000, look=1).decision == "fail"
    assert latency.judge({1.0: 95, 10.0: 6}, slo_p95_ms=2000, look=1).decision == "continue"


def test_judge_over_many_looks_keeps_the_error_rate() -> None:
    rng = random.Random(3)
    passed = 0
    for _ in range(300):
        counts = {1.0: 0.0, 2.0: 0.0}
        for look in range(1, 60):
            for _ in range(40):
                counts[1.0 if rng.random() > 0.0501 else 2.0] += 1
            if latency.judge(counts, slo_p95_ms=1000, look=look).decision == "pass":
                passed += 1
                break
    assert passed / 300 <= ERROR_RATE + 0.02


histograms = (
    st.lists(st.integers(0, 1000), min_size=len(EDGES), max_size=len(EDGES))
    .filter(any)
    .map(lambda counts: dict(zip(EDGES, map(float, counts), strict=True)))
)


@given(histograms, st.floats(0, 1))
def test_quantile_lies_within_the_edges(histogram: dict[float, float], q: float) -> None:
    assert 0.0 <= latency.quantile(histogram, q) <= EDGES[-2]


@given(histograms, st.floats(0.01, 1), st.integers(2, 50))
def test_quantile_depends_on_shares_only(histogram: dict[float, float], q: float, times: int) -> None:
    more = {edge: count * times for edge, count in histogram.items()}
    assert latency.quantile(more, q) == pytest.approx(latency.quantile(histogram, q), abs=1e-6)


@given(histograms, histograms, st.floats(0.01, 0.99))
def test_quantile_of_two_replicas_together_lies_between_theirs(
    one: dict[float, float], other: dict[float, float], q: float
) -> None:
    both = latency.quantile({edge: one[edge] + other[edge] for edge in EDGES}, q)
    apart = sorted((latency.quantile(one, q), latency.quantile(other, q)))
    # If empty buckets follow that rank, both ends of the gap are valid quantiles.
    assert _floor(apart[0]) <= both + 1e-9
    assert both <= _ceiling(apart[1]) + 1e-9


def _floor(value: float) -> float:
    return max((edge for edge in (0.0, *EDGES[:-1]) if edge <= value), default=0.0)


def _ceiling(value: float) -> float:
    return min((edge for edge in EDGES[:-1] if edge >= value), default=EDGES[-2])


@given(histograms, st.floats(1, 20_000), st.integers(1, 200))
def test_verdict_follows_from_its_bounds(histogram: dict[float, float], slo: float, look: int) -> None:
    verdict = latency.judge(histogram, slo, look)
    assert verdict.observations == sum(histogram.values())
    if verdict.observations < latency.MIN_OBSERVATIONS:
        assert verdict.decision == "continue"
        return
    assert verdict.lower_bound is not None
    assert verdict.upper_bound is not None
    assert verdict.estimate is not None
    assert 0 <= verdict.lower_bound <= verdict.estimate <= verdict.upper_bound
    assert (verdict.decision == "pass") is (verdict.upper_bound <= slo)
    assert (verdict.decision == "fail") is (verdict.lower_bound > slo)


@given(histograms, st.integers(1, 200))
def test_later_look_needs_more_evidence(histogram: dict[float, float], look: int) -> None:
    first, later = (latency.judge(histogram, 5_000, at) for at in (look, look + 1))
    if first.upper_bound is not None and later.upper_bound is not None:
        assert later.upper_bound >= first.upper_bound - 1e-9
    assert first.decision != "continue" or later.decision == "continue"
