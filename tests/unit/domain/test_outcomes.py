"""What is learnt from past changes."""

import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain.outcomes import DIMENSIONS, MIN_SIMILARITY, Change, Outcome, correction, features
from optiinfra.domain.recommendation import ADVICE_ONLY, RecommendationType

MIGRATION = Change("spot_migration", 27.45, 70.6e9, gpu_count=8, replicas=2, requests_per_second=2.0)


def similarity(one: Change, other: Change) -> float:
    a, b = features(one), features(other)
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def outcome(modelled: float, measured: float, similarity: float = 1.0) -> Outcome:
    return Outcome("opt_1", similarity, {"savings": modelled}, {"savings": measured})


def test_features_have_the_stated_length() -> None:
    assert len(features(MIGRATION)) == DIMENSIONS


def test_a_change_of_like_size_is_similar_and_one_of_another_kind_is_not() -> None:
    assert similarity(MIGRATION, replace(MIGRATION, replicas=3, requests_per_second=1.5)) > MIN_SIMILARITY
    assert similarity(MIGRATION, replace(MIGRATION, type="quantization")) < MIN_SIMILARITY


def test_nothing_known_corrects_nothing() -> None:
    assert correction([], "savings") == 1.0


def test_correction_moves_towards_what_was_measured_and_further_the_more_is_known() -> None:
    once = correction([outcome(100, 120)], "savings")
    thrice = correction([outcome(100, 120)] * 3, "savings")
    assert 1.0 < once < thrice < 1.2


def test_a_less_similar_outcome_weighs_less() -> None:
    assert correction([outcome(100, 120, 0.9)], "savings") < correction([outcome(100, 120, 1.0)], "savings")


@pytest.mark.parametrize("measured", [0.0, -5.0])
def test_what_cannot_be_a_factor_is_left_out(measured: float) -> None:
    assert correction([outcome(100, measured)], "savings") == 1.0


def test_a_figure_that_was_not_kept_is_not_corrected() -> None:
    assert correction([outcome(100, 120)], "p95_latency_ms") == 1.0


figures = st.floats(0.01, 1e7)
pasts = st.lists(st.builds(outcome, figures, figures, st.floats(MIN_SIMILARITY, 1)), max_size=8)
changes = st.builds(
    Change,
    st.sampled_from(get_args(RecommendationType)).filter(lambda kind: kind not in ADVICE_ONLY),
    st.floats(0.1, 200),
    st.floats(1e8, 1e12),
    st.integers(1, 16),
    st.integers(1, 64),
    st.floats(0, 1000),
)


@given(pasts)
def test_a_correction_goes_no_further_than_what_was_seen(past: list[Outcome]) -> None:
    ratios = [known.measured["savings"] / known.modelled["savings"] for known in past]
    found = correction(past, "savings")
    assert min([1.0, *ratios]) * (1 - 1e-9) <= found <= max([1.0, *ratios]) * (1 + 1e-9)


@given(pasts)
def test_the_order_in_which_it_was_learnt_does_not_matter(past: list[Outcome]) -> None:
    assert correction(past[::-1], "savings") == pytest.approx(correction(past, "savings"))


@given(pasts)
def test_what_was_off_the_other_way_is_corrected_the_other_way(past: list[Outcome]) -> None:
    mirrored = [replace(known, modelled=known.measured, measured=known.modelled) for known in past]
    assert correction(past, "savings") * correction(mirrored, "savings") == pytest.approx(1.0)


@given(changes, changes)
def test_a_change_is_most_like_itself_and_never_like_another_kind(one: Change, other: Change) -> None:
    assert similarity(one, one) == pytest.approx(1.0)
    assert 0.0 <= similarity(one, other) <= 1.0 + 1e-9
    assert similarity(one, other) == pytest.approx(similarity(other, one))
    if one.type != other.type:
        assert similarity(one, other) < similarity(one, one)
