"""What is learnt from past changes."""

import math
from dataclasses import replace

import pytest

from optiinfra.domain.outcomes import DIMENSIONS, MIN_SIMILARITY, Change, Outcome, correction, features

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
