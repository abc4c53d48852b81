"""Answer quality: the share of golden prompts answered correctly, with exact binomial confidence bounds."""

from optiinfra.domain.verdict import ERROR_RATE, Verdict

INTERIM_ANALYSES = (120, 240)
"""Cumulative numbers of golden prompts after which a stage is judged; the baseline takes the last number."""

KEPT_SHARE = 0.95
"""Share of the baseline's quality that a change must keep."""


def lower_bound(correct: int, answered: int, error: float = ERROR_RATE) -> float:
    """One-sided Clopper-Pearson lower bound of the true share of correct answers, with error probability `error`."""
    from scipy.special import betaincinv  # imported lazily: takes half a second

    _check(correct, answered)
    return 0.0 if correct == 0 else float(betaincinv(correct, answered - correct + 1, error))


def upper_bound(correct: int, answered: int, error: float = ERROR_RATE) -> float:
    """One-sided Clopper-Pearson upper bound of the true share of correct answers, with error probability `error`."""
    from scipy.special import betaincinv

    _check(correct, answered)
    return 1.0 if correct == answered else float(betaincinv(correct + 1, answered - correct, 1.0 - error))


def required(baseline: float, slo: float) -> float:
    """Quality that a change must keep: 95% of the baseline, and at least the deployment's own objective."""
    return max(KEPT_SHARE * baseline, slo)


def judge(correct: int, answered: int, lost: int, baseline: float, slo: float) -> Verdict:
    """Judge one look of a sequential test, with Bonferroni correction for the number of looks and bounds.

    `lost` of the `answered` prompts were correct before the change and are wrong now, with the same sampling seed.
    The lower bound is the better of two: that of the answers alone, and the baseline less the upper bound of the lost
    share. The paired comparison cancels sampling noise.

    Passes if the lower bound reaches `required`. Fails if the upper bound is below it, or at the last look.
    Otherwise continues.
    """
    if not 0 <= lost <= answered - correct:
        raise ValueError(f"{lost} lost of {answered - correct} wrong: only what is wrong now can have been lost")
    error = ERROR_RATE / len(INTERIM_ANALYSES) / 2
    needed, score = required(baseline, slo), correct / answered
    low = max(lower_bound(correct, answered, error), baseline - upper_bound(lost, answered, error))
    high = upper_bound(correct, answered, error)
    seen = (
        f"{correct} of {answered} golden prompts correct ({score:.3f}), {lost} lost by the change: "
        f"quality is at least {low:.3f}, needed {needed:.3f}"
    )
    if low >= needed:
        return Verdict("pass", seen, answered, score, low, high)
    if high < needed:
        return Verdict("fail", seen, answered, score, low, high)
    if answered >= INTERIM_ANALYSES[-1]:
        return Verdict("fail", f"{seen}: not proven after the last interim analysis", answered, score, low, high)
    return Verdict("continue", seen, answered, score, low, high)


def _check(correct: int, answered: int) -> None:
    if answered < 1 or not 0 <= correct <= answered:
        raise ValueError(f"{correct} correct of {answered} answered: need 0 <= correct <= answered, answered >= 1")
