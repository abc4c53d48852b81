"""Exact bounds of quality, and a sequential test that keeps its error rate."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain import quality
from optiinfra.domain.verdict import ERROR_RATE


def test_bounds_are_clopper_pearson() -> None:
    # 0.05 ** (1 / 20): twenty of twenty right.
    assert quality.lower_bound(20, 20, 0.05) == pytest.approx(0.8609, abs=1e-4)
    assert quality.upper_bound(0, 20, 0.05) == pytest.approx(1 - 0.8609, abs=1e-4)
    # Tables of the exact interval, 95% one-sided, 8 of 10.
    assert quality.lower_bound(8, 10, 0.05) == pytest.approx(0.4931, abs=1e-4)
    assert quality.upper_bound(8, 10, 0.05) == pytest.approx(0.9632, abs=1e-4)


def test_bounds_of_none_and_all_correct_are_zero_and_one() -> None:
    assert quality.lower_bound(0, 50) == 0.0
    assert quality.upper_bound(50, 50) == 1.0


@pytest.mark.parametrize(("correct", "answered"), [(1, 0), (5, 4), (-1, 4)])
def test_bound_of_impossible_counts_raises(correct: int, answered: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= correct <= answered"):
        quality.lower_bound(correct, answered)


def test_required_is_the_stricter_of_objective_and_baseline() -> None:
    assert quality.required(baseline=1.0, slo=0.9) == pytest.approx(0.95)
    assert quality.required(baseline=0.92, slo=0.9) == pytest.approx(0.9)


def test_judge_with_few_answers_continues() -> None:
    assert quality.judge(113, 120, lost=5, baseline=0.98, slo=0.9).decision == "continue"


def test_judge_of_unchanged_engine_passes_at_the_first_look() -> None:
    assert quality.judge(119, 120, lost=0, baseline=119 / 120, slo=0.9).decision == "pass"
    assert quality.judge(112, 120, lost=0, baseline=112 / 120, slo=0.85).decision == "pass"


def test_judge_passes_good_and_fails_bad_quality() -> None:
    assert quality.judge(236, 240, lost=2, baseline=0.99, slo=0.9).decision == "pass"
    assert quality.judge(80, 120, lost=38, baseline=0.98, slo=0.9).decision == "fail"


def test_judge_below_objective_fails_whatever_the_baseline() -> None:
    assert quality.judge(220, 240, lost=0, baseline=220 / 240, slo=0.95).decision == "fail"


def test_judge_at_last_look_without_proof_fails() -> None:
    verdict = quality.judge(226, 240, lost=9, baseline=0.98, slo=0.9)
    assert verdict.decision == "fail"
    assert "last interim analysis" in verdict.reason


def test_judge_with_more_lost_than_wrong_raises() -> None:
    with pytest.raises(ValueError, match="3 lost of 1 wrong"):
        quality.judge(119, 120, lost=3, baseline=1.0, slo=0.9)


def test_judge_of_quality_just_below_required_keeps_the_error_rate() -> None:
    rng = random.Random(7)
    needed = quality.required(baseline=1.0, slo=0.9)
    passed = sum(_run(rng, needed - 1e-6) for _ in range(600))
    assert passed / 600 <= ERROR_RATE + 0.02


def test_judge_with_two_bounds_and_two_looks_keeps_the_error_rate() -> None:
    # With a baseline of 0.8 the two bounds vary independently: four chances of a false pass.
    rng, baseline = random.Random(9), 0.8
    spoilt = 1 - (quality.required(baseline, slo=0.5) - 1e-6) / baseline
    passed = sum(_run_from(rng, baseline, spoilt) for _ in range(1000))
    assert passed / 1000 <= ERROR_RATE + 0.02


def test_judge_of_equal_quality_passes_nearly_always() -> None:
    rng = random.Random(8)
    assert sum(_run(rng, 0.995) for _ in range(300)) >= 297


def _run(rng: random.Random, kept: float) -> bool:
    correct = answered = 0
    for look in quality.INTERIM_ANALYSES:
        correct += sum(rng.random() < kept for _ in range(look - answered))
        answered = look
        verdict = quality.judge(correct, answered, answered - correct, baseline=1.0, slo=0.9)
        if verdict.decision != "continue":
            return verdict.decision == "pass"
    raise AssertionError("the last interim analysis is conclusive")


def _run_from(rng: random.Random, baseline: float, spoilt: float) -> bool:
    """As `_run`, from a baseline below 1, a share of whose right answers the change has spoilt."""
    correct = lost = answered = 0
    for look in quality.INTERIM_ANALYSES:
        for _ in range(look - answered):
            was_right, is_spoilt = rng.random() < baseline, rng.random() < spoilt
            correct, lost = correct + (was_right and not is_spoilt), lost + (was_right and is_spoilt)
        answered = look
        verdict = quality.judge(correct, answered, lost, baseline=baseline, slo=0.5)
        if verdict.decision != "continue":
            return verdict.decision == "pass"
    raise AssertionError("the last interim analysis is conclusive")


answers = st.integers(1, 400).flatmap(lambda answered: st.tuples(st.integers(0, answered), st.just(answered)))


@given(answers, st.floats(0.001, 0.4))
def test_bounds_contain_the_share_and_are_symmetric(counted: tuple[int, int], error: float) -> None:
    correct, answered = counted
    low, high = quality.lower_bound(correct, answered, error), quality.upper_bound(correct, answered, error)
    assert 0.0 <= low <= correct / answered <= high <= 1.0
    assert quality.upper_bound(answered - correct, answered, error) == pytest.approx(1.0 - low)


@given(answers, st.floats(0.001, 0.2))
def test_bounds_rise_with_correct_answers_and_widen_with_certainty(counted: tuple[int, int], error: float) -> None:
    correct, answered = counted
    for bound in (quality.lower_bound, quality.upper_bound):
        assert bound(correct, answered, error) <= bound(correct + 1, answered + 1, error)
    assert quality.lower_bound(correct, answered, error) <= quality.lower_bound(correct, answered, 2 * error)


@given(answers, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_verdict_follows_from_its_bounds(
    counted: tuple[int, int], lost_share: float, baseline: float, slo: float
) -> None:
    correct, answered = counted
    lost = int(lost_share * (answered - correct))
    verdict = quality.judge(correct, answered, lost, baseline, slo)
    assert verdict.lower_bound is not None
    assert verdict.upper_bound is not None
    needed = quality.required(baseline, slo)
    assert needed >= slo
    assert (verdict.decision == "pass") is (verdict.lower_bound >= needed)
    if verdict.upper_bound < needed and verdict.decision != "pass":
        assert verdict.decision == "fail"
    if answered >= quality.INTERIM_ANALYSES[-1]:
        assert verdict.decision != "continue"


@given(answers, st.floats(0, 1), st.floats(0, 1))
def test_judge_with_more_lost_passes_no_more_often(counted: tuple[int, int], baseline: float, slo: float) -> None:
    correct, answered = counted
    passed = [
        quality.judge(correct, answered, lost, baseline, slo).decision == "pass"
        for lost in (0, (answered - correct) // 2, answered - correct)
    ]
    assert passed == sorted(passed, reverse=True)
