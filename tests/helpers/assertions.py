"""Assertions that scenarios share. Each failure names the expected and the actual value."""

from collections.abc import Mapping

from optiinfra.api.recommendations import Optimization, Recommendation, Result
from optiinfra.domain.optimization import STEPS

KEPT_QUALITY = 0.95
REALIZED_SAVINGS = 0.80
"""Share of the predicted savings that must come true."""


def assert_cost_reduced(
    before: float, after: float, at_least_percent: float, *, predicted_savings: float, actual_savings: float | None
) -> None:
    """The cost fell by more than so many percent, and at least 80% of the predicted savings came true.

    Costs and savings are dollars a month.
    """
    assert before > 0, f"the cost before is ${before:,.2f}: nothing could be reduced"
    reduction = (before - after) / before * 100
    assert reduction > at_least_percent, (
        f"cost ${before:,.2f} -> ${after:,.2f} a month is {reduction:.1f}% less; more than {at_least_percent}% was due"
    )
    assert predicted_savings > 0, f"predicted savings are ${predicted_savings:,.2f}: nothing was predicted"
    assert actual_savings is not None, "the actual savings were not measured"
    assert actual_savings >= REALIZED_SAVINGS * predicted_savings, (
        f"saved ${actual_savings:,.2f} of the predicted ${predicted_savings:,.2f} a month; "
        f"at least {REALIZED_SAVINGS:.0%} was due"
    )


def assert_quality_maintained(result: Result, slo: float) -> None:
    """The lower confidence bound of the quality is at least 95% of the baseline, and meets the objective."""
    assert result.quality_before is not None, "no quality baseline was measured"
    assert result.quality_lower_bound is not None, "no lower bound of the quality afterwards was measured"
    needed = max(KEPT_QUALITY * result.quality_before, slo)
    assert result.quality_lower_bound >= needed, (
        f"quality is at least {result.quality_lower_bound:.3f}, needed {needed:.3f} "
        f"(baseline {result.quality_before:.3f}, objective {slo:.3f})"
    )


def assert_optimization_successful(optimization: Optimization) -> Result:
    """The optimization is completed, each step of its type ran once, in order, without rollback. Returns the result."""
    error = optimization.result.error if optimization.result else None
    assert optimization.status == "completed", f"{optimization.id} is {optimization.status}: {error}"
    names = tuple(step.name for step in optimization.execution_steps)
    assert names == STEPS[optimization.type], f"steps {names}, expected {STEPS[optimization.type]}"
    for step in optimization.execution_steps:
        assert step.status == "completed", f"step {step.name} is {step.status}: {step.detail}"
        assert step.completed_at is not None, f"step {step.name} has no completion time"
        assert step.attempt == 1, f"step {step.name} took {step.attempt} attempts"
    for earlier, later in zip(optimization.execution_steps, optimization.execution_steps[1:], strict=False):
        assert earlier.completed_at is not None
        assert earlier.completed_at <= later.started_at, f"{later.name} started before {earlier.name} had completed"
    assert not optimization.rollback_steps, (
        f"steps were rolled back: {[step.name for step in optimization.rollback_steps]}"
    )
    assert optimization.result is not None, f"{optimization.id} is completed without a result"
    assert optimization.result.success, f"{optimization.id} is completed without success: {error}"
    return optimization.result


def assert_multi_agent_coordination(
    recommendation: Recommendation, proposer: str, verdicts: Mapping[str, bool]
) -> None:
    """Exactly these other agents validated the recommendation, with these verdicts and a reason each."""
    assert recommendation.agent_type == proposer, f"proposed by {recommendation.agent_type}, expected {proposer}"
    given = {validation.agent_type: validation.approved for validation in recommendation.validations}
    assert len(given) == len(recommendation.validations), f"an agent judged twice: {recommendation.validations}"
    assert proposer not in given, f"the {proposer} agent judged its own recommendation"
    assert given == dict(verdicts), f"validations {given}, expected {dict(verdicts)}"
    for validation in recommendation.validations:
        assert validation.reason, f"the {validation.agent_type} agent gave no reason"
