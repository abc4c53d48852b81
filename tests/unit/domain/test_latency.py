"""Latency: quantiles out of buckets, and the judgement of a 95th percentile."""

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


def test_a_quantile_in_the_open_bucket_is_its_lower_edge() -> None:
    assert latency.quantile({1.0: 10, 10.0: 0, math.inf: 90}, 0.95) == 10.0


def test_an_empty_histogram_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no observation"):
        latency.quantile({1.0: 0.0}, 0.95)


@given(st.lists(st.integers(0, 1000), min_size=len(EDGES), max_size=len(EDGES)), st.floats(0.01, 0.98))
def test_quantiles_grow_with_their_rank(counts: list[int], q: float) -> None:
    if sum(counts) == 0:
        return
    histogram = dict(zip(EDGES, map(float, counts), strict=True))
    assert latency.quantile(histogram, q) <= latency.quantile(histogram, q + 0.01) + 1e-9


def test_bounds_hold_the_estimate_and_narrow_with_more_requests() -> None:
    few = latency.p95_bounds({1.0: 80, 2.0: 19, 5.0: 1})
    many = latency.p95_bounds({1.0: 8000, 2.0: 1900, 5.0: 100})
    for estimate, low, high in (few, many):
        assert low <= estimate <= high
    assert many[2] - many[1] < few[2] - few[1]


def test_too_few_requests_decide_nothing() -> None:
    verdict = latency.judge({0.1: latency.MIN_OBSERVATIONS - 1}, slo_p95_ms=1000, look=1)
    assert verdict.decision == "continue"
    assert verdict.estimate is None


def test_fast_passes_slow_fails_and_the_doubtful_is_looked_at_again() -> None:
    assert latency.judge({1.0: 990, 2.0: 10}, slo_p95_ms=2000, look=1).decision == "pass"
    assert latency.judge({1.0: 500, 10.0: 500}, slo_p95_ms=2000, look=1).decision == "fail"
    assert latency.judge({1.0: 95, 10.0: 6}, slo_p95_ms=2000, look=1).decision == "continue"


def test_one_that_is_just_too_slow_passes_no_oftener_than_the_error_rate_however_often_one_looks() -> None:
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
