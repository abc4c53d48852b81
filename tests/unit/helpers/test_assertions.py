"""The scenarios' assertions: each passes on correct results and fails on every kind of wrong one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optiinfra.api.agents import Validation
from optiinfra.api.recommendations import Optimization, Recommendation, Result, Step
from optiinfra.domain.optimization import STEPS
from tests.helpers.assertions import (
    assert_cost_reduced,
    assert_multi_agent_coordination,
    assert_optimization_successful,
    assert_quality_maintained,
)
from tests.helpers.examples import recommendation

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def result(**changes: Any) -> Result:
    return Result(
        success=True, predicted_savings=10.0, quality_before=0.98, quality_after=0.98, quality_lower_bound=0.95
    ).model_copy(update=changes)


def steps(names: tuple[str, ...] = STEPS["spot_migration"]) -> list[Step]:
    return [
        Step(
            name=name,
            status="completed",
            attempt=1,
            started_at=BEGAN + timedelta(seconds=number),
            completed_at=BEGAN + timedelta(seconds=number, milliseconds=900),
            detail={},
        )
        for number, name in enumerate(names)
    ]


def optimization(**changes: Any) -> Optimization:
    return Optimization(
        id="opt_1",
        recommendation_id="rec_1",
        type="spot_migration",
        status="completed",
        started_at=BEGAN,
        completed_at=BEGAN + timedelta(seconds=9),
        execution_steps=steps(),
        rollback_steps=[],
        result=result(),
    ).model_copy(update=changes)


def changed_step(number: int, **changes: Any) -> list[Step]:
    every = steps()
    every[number] = every[number].model_copy(update=changes)
    return every


def said(agent: str, *, approved: bool = True, reason: str = "because") -> Validation:
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
        (50.0, 39.99, r"saved \$39.99 a month, 80% of the predicted \$50.00; at least 80% was due"),
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
    assert assert_optimization_successful(optimization()) == result()


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "rolled_back"},
        {"execution_steps": steps()[:-1]},
        {"execution_steps": steps(tuple(reversed(STEPS["spot_migration"])))},
        {"execution_steps": changed_step(2, status="failed")},
        {"execution_steps": changed_step(2, completed_at=None)},
        {"execution_steps": changed_step(2, attempt=2)},
        {"execution_steps": changed_step(3, started_at=BEGAN)},
        {"rollback_steps": steps(("undo_deploy_canary",))},
        {"result": None},
        {"result": result(success=False)},
    ],
)
def test_optimization_successful_with_anything_amiss_fails(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        assert_optimization_successful(optimization(**changes))


def test_multi_agent_coordination_passes() -> None:
    judged = recommendation(said("performance"), said("application", approved=False))
    assert_multi_agent_coordination(judged, "cost", {"performance": True, "application": False})


@pytest.mark.parametrize(
    "judged",
    [
        recommendation(said("performance")),
        recommendation(said("performance"), said("application", approved=False)),
        recommendation(said("performance"), said("performance"), said("application")),
        recommendation(said("performance"), said("application"), said("cost")),
        recommendation(said("performance"), said("application", reason="")),
        recommendation(said("performance"), said("application")).model_copy(update={"agent_type": "resource"}),
    ],
)
def test_multi_agent_coordination_with_other_validations_fails(judged: Recommendation) -> None:
    with pytest.raises(AssertionError):
        assert_multi_agent_coordination(judged, "cost", {"performance": True, "application": True})
