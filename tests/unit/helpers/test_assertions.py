"""The scenarios' assertions: each passes on correct results and fails on every kind of wrong one."""

from typing import Any

import pytest

from optiinfra.api.agents import Validation
from optiinfra.api.recommendations import Recommendation, Result, Step
from tests.helpers.assertions import (
    assert_cost_reduced,
    assert_multi_agent_coordination,
    assert_optimization_successful,
    assert_quality_maintained,
)
from tests.helpers.examples import SPOT_MIGRATION, STARTED, optimization, recommendation, steps


def result(**changes: Any) -> Result:
    return Result(
        success=True, predicted_savings=10.0, quality_before=0.98, quality_after=0.98, quality_lower_bound=0.95
    ).model_copy(update=changes)


def changed_step(number: int, **changes: Any) -> list[Step]:
    every = steps(*SPOT_MIGRATION)
    every[number] = every[number].model_copy(update=changes)
    return every


def validation(agent: str, *, approved: bool = True, reason: str = "because") -> Validation:
    return Validation(agent_type=agent, approved=approved, reason=reason)


@pytest.mark.parametrize("actual", [40.0, 60.0])
def test_cost_reduced_with_80_percent_of_the_predicted_savings_passes(actual: float) -> None:
    assert_cost_reduced(100.0, 50.0, at_least_percent=40, predicted_savings=50.0, actual_savings=actual)


@pytest.mark.parametrize(("before", "after"), [(100.0, 60.0), (100.0, 130.0), (0.0, 0.0)])
def test_cost_reduced_with_too_small_a_reduction_fails(before: float, after: float) -> None:
    with pytest.raises(AssertionError):
        assert_cost_reduced(before, after, at_least_percent=40, predicted_savings=50.0, actual_savings=50.0)


@pytest.mark.parametrize(
    ("predicted", "actual", "message"),
    [
        (50.0, 39.99, r"saved \$39.99 of the predicted \$50.00 a month; at least 80% was due"),
        (50.0, -1.0, "at least 80% was due"),
        (50.0, None, "not measured"),
        (0.0, 0.0, "nothing was predicted"),
    ],
)
def test_cost_reduced_with_less_than_80_percent_of_the_predicted_savings_fails(
    predicted: float, actual: float | None, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_cost_reduced(100.0, 50.0, at_least_percent=40, predicted_savings=predicted, actual_savings=actual)


def test_quality_maintained_passes() -> None:
    assert_quality_maintained(result(), slo=0.9)


@pytest.mark.parametrize(
    ("changes", "slo"),
    [
        ({"quality_lower_bound": 0.92}, 0.9),
        ({}, 0.96),
        ({"quality_before": None}, 0.9),
        ({"quality_lower_bound": None}, 0.9),
    ],
)
def test_quality_maintained_with_too_low_or_unmeasured_quality_fails(changes: dict[str, Any], slo: float) -> None:
    with pytest.raises(AssertionError):
        assert_quality_maintained(result(**changes), slo)


def test_optimization_successful_passes() -> None:
    completed = optimization()
    assert assert_optimization_successful(completed) == completed.result


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "rolled_back"},
        {"execution_steps": steps(*SPOT_MIGRATION[:-1])},
        {"execution_steps": steps(*reversed(SPOT_MIGRATION))},
        {"execution_steps": changed_step(2, status="failed")},
        {"execution_steps": changed_step(2, completed_at=None)},
        {"execution_steps": changed_step(2, attempt=2)},
        {"execution_steps": changed_step(3, started_at=STARTED)},
        {"rollback_steps": steps("undo_deploy_canary")},
        {"result": None},
        {"result": result(success=False)},
    ],
)
def test_optimization_successful_with_any_violation_fails(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_optimization_successful(optimization(**changes))


def test_multi_agent_coordination_passes() -> None:
    judged = recommendation(validation("performance"), validation("application", approved=False))
    assert_multi_agent_coordination(judged, "cost", {"performance": True, "application": False})


@pytest.mark.parametrize(
    "judged",
    [
        recommendation(validation("performance")),
        recommendation(validation("performance"), validation("application", approved=False)),
        recommendation(validation("performance"), validation("performance"), validation("application")),
        recommendation(validation("performance"), validation("application"), validation("cost")),
        recommendation(validation("performance"), validation("application", reason="")),
        recommendation(validation("performance"), validation("application")).model_copy(
            update={"agent_type": "resource"}
        ),
    ],
)
def test_multi_agent_coordination_with_other_validations_fails(judged: Recommendation) -> None:
    with pytest.raises(AssertionError):
        assert_multi_agent_coordination(judged, "cost", {"performance": True, "application": True})
