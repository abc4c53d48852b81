"""Similarity of changes, and correction of predictions."""

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


def test_features_have_the_declared_dimensions() -> None:
    assert len(features(MIGRATION)) == DIMENSIONS


def test_similarity_needs_the_same_type_and_a_similar_size() -> None:
    assert similarity(MIGRATION, replace(MIGRATION, replicas=3, requests_per_second=1.5)) > MIN_SIMILARITY
    assert similarity(MIGRATION, replace(MIGRATION, type="quantization")) < MIN_SIMILARITY


def test_correction_without_outcomes_is_one() -> None:
    assert correction([], "savings") == 1.0


def test_correction_approaches_the_measured_ratio_with_more_outcomes() -> None:
    once = correction([outcome(100, 120)], "savings")
    thrice = correction([outcome(100, 120)] * 3, "savings")
    assert 1.0 < once < thrice < 1.2


def test_correction_weighs_less_similar_outcome_less() -> None:
    assert correction([outcome(100, 120, 0.9)], "savings") < correction([outcome(100, 120, 1.0)], "savings")


@pytest.mark.parametrize("measured", [0.0, -5.0])
def test_correction_ignores_measured_figure_that_is_not_positive(measured: float) -> None:
    assert correction([outcome(100, measured)], "savings") == 1.0


def test_correction_of_unknown_figure_is_one() -> None:
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
def test_correction_lies_within_the_observed_ratios(past: list[Outcome]) -> None:
    ratios = [known.measured["savings"] / known.modelled["savings"] for known in past]
    found = correction(past, "savings")
    assert min([1.0, *ratios]) * (1 - 1e-9) <= found <= max([1.0, *ratios]) * (1 + 1e-9)


@given(pasts)
def test_correction_does_not_depend_on_the_order(past: list[Outcome]) -> None:
    assert correction(past[::-1], "savings") == pytest.approx(correction(past, "savings"))


@given(pasts)
def test_correction_of_inverse_ratios_is_inverse(past: list[Outcome]) -> None:
    mirrored = [replace(known, modelled=known.measured, measured=known.modelled) for known in past]
    assert correction(past, "savings") * correction(mirrored, "savings") == pytest.approx(1.0)


@given(changes, changes)
def test_similarity_is_highest_to_itself_and_lower_to_other_types(one: Change, other: Change) -> None:
    assert similarity(one, one) == pytest.approx(1.0)
    assert 0.0 <= similarity(one, other) <= 1.0 + 1e-9
    assert similarity(one, other) == pytest.approx(similarity(other, one))
    if one.type != other.type:
        assert similarity(one, other) < similarity(one, one)
