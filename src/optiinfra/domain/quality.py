"""Answer quality: the share of golden prompts answered correctly, with exact binomial confidence bounds."""

from optiinfra.domain.verdict import ERROR_RATE, Verdict

LOOKS = (120, 240)
"""Cumulative numbers of golden prompts after which a stage is judged; the baseline is taken from the last."""

KEPT_SHARE = 0.95
"""Share of the baseline's quality that a change must keep."""


def lower_bound(correct: int, answered: int, error: float = ERROR_RATE) -> float:
    """One-sided Clopper-Pearson lower bound of the true share of correct answers, wrong with chance `error`."""
    from scipy.special import betaincinv  # half a second, so only where it is used

    _check(correct, answered)
    return 0.0 if correct == 0 else float(betaincinv(correct, answered - correct + 1, error))


def upper_bound(correct: int, answered: int, error: float = ERROR_RATE) -> float:
    """One-sided Clopper-Pearson upper bound of the true share of correct answers, wrong with chance `error`."""
    from scipy.special import betaincinv

    _check(correct, answered)
    return 1.0 if correct == answered else float(betaincinv(correct + 1, answered - correct, 1.0 - error))


def required(baseline: float, slo: float) -> float:
    """Quality that a change must be shown to keep: 95% of the baseline, and the deployment's own objective."""
    return max(KEPT_SHARE * baseline, slo)


def judge(correct: int, answered: int, lost: int, baseline: float, slo: float) -> Verdict:
    """Judge one look of a sequential test with Bonferroni's correction for the number of looks.

    `lost` of the `answered` prompts were answered right before the change and wrong since, under the same sampling
    seed. The quality is at least what the answers alone show, and at least the baseline less the share that was lost;
    the better of the two bounds counts. Comparing prompt by prompt, luck of the draw cancels out.

    Passes when that bound reaches `required`, fails when the upper bound stays under it or the last look could not
    show it; asks for more otherwise.
    """
    if not 0 <= lost <= answered - correct:
        raise ValueError(f"{lost} lost of {answered - correct} wrong: only what is wrong now can have been lost")
    error = ERROR_RATE / len(LOOKS) / 2
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
    if answered >= LOOKS[-1]:
        return Verdict("fail", f"{seen}: not shown after the last look", answered, score, low, high)
    return Verdict("continue", seen, answered, score, low, high)


def _check(correct: int, answered: int) -> None:
    if answered < 1 or not 0 <= correct <= answered:
        raise ValueError(f"{correct} correct of {answered} answered: need 0 <= correct <= answered, answered >= 1")
