from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain import savings


def test_month_has_730_hours() -> None:
    assert savings.monthly(27.44705, count=2) == pytest.approx(40_072.69, abs=0.01)


def test_reduction_is_in_percent_of_the_cost_before() -> None:
    assert savings.reduction_percent(200.0, 150.0) == pytest.approx(25.0)
    assert savings.reduction_percent(100.0, 120.0) == pytest.approx(-20.0)
    with pytest.raises(ValueError, match="above 0"):
        savings.reduction_percent(0.0, 10.0)


def test_total_is_rounded_to_cents_and_leaves_out_unknown_costs() -> None:
    assert savings.total([0.1, None, 0.2]) == 0.3


def test_compare_with_an_unknown_cost_afterwards_claims_no_savings() -> None:
    known = {"cost_before": 30.0, "cost_after": 20.0, "actual_savings": 10.0, "reduction_percent": 33.33}
    unknown = {"cost_before": 30.0, "cost_after": None, "actual_savings": None, "reduction_percent": None}
    assert savings.compare(30.0, 20.0) == known
    assert savings.compare(30.0, None) == unknown
    assert savings.compare(0.0, 20.0)["reduction_percent"] is None


@given(st.floats(0.01, 1e4), st.integers(0, 1000), st.integers(0, 1000))
def test_monthly_cost_is_additive(hourly: float, some: int, others: int) -> None:
    together = savings.monthly(hourly, some + others)
    assert together == pytest.approx(savings.monthly(hourly, some) + savings.monthly(hourly, others))


@given(st.floats(0.01, 1e9), st.floats(0, 10))
def test_reduction_leads_from_cost_before_to_cost_after(before: float, times: float) -> None:
    after = before * times
    percent = savings.reduction_percent(before, after)
    assert percent <= 100.0
    assert before * (1 - percent / 100) == pytest.approx(after, abs=1e-6 * before)


@given(st.lists(st.integers(0, 10**9), max_size=30), st.randoms(use_true_random=False))
def test_total_does_not_depend_on_the_order(cents: list[int], rng: Random) -> None:
    costs = [each / 100 for each in cents]
    before = savings.total(costs)
    rng.shuffle(costs)
    assert savings.total(costs) == before == pytest.approx(sum(cents) / 100, abs=0.005)
