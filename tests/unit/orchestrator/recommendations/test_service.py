"""Which recommendations may be approved: validated by all, executable, and still pending; and which automatically."""

from typing import Any

import pytest

from optiinfra.api.agents import Validation
from optiinfra.api.customers import Preferences
from optiinfra.api.recommendations import Recommendation
from optiinfra.orchestrator.errors import Conflict
from optiinfra.orchestrator.recommendations.service import approves_automatically, require_approvable
from tests.helpers.examples import recommendation


def judged(agent_type: Any, *, approved: bool = True) -> Validation:
    return Validation(agent_type=agent_type, approved=approved, reason="p95 would pass 10 s")


def recommended(**changes: Any) -> Recommendation:
    """A recommendation of the cost agent that both validators approved."""
    return recommendation(judged("performance"), judged("application"), **changes)


def test_recommendation_approved_by_every_validator_is_approvable() -> None:
    # Neither raises: that is the answer.
    require_approvable(recommended())
    require_approvable(recommended(agent_type="performance", validations=[judged("application")]))


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        (
            {"validations": [judged("performance", approved=False), judged("application")], "status": "rejected"},
            "refused_by_validator",
            "the performance agent refused it: p95 would pass 10 s",
        ),
        (
            {"validations": [judged("performance"), judged("application", approved=False)]},
            "refused_by_validator",
            "the application agent refused it",
        ),
        ({"validations": []}, "not_validated", "not yet validated by: performance, application"),
        ({"validations": [judged("performance")]}, "not_validated", "not yet validated by: application"),
        ({"type": "commitment"}, "not_executable", "this is advice"),
        ({"status": "expired"}, "not_pending", "is expired, not pending"),
        ({"status": "rejected"}, "not_pending", "is rejected, not pending"),
        ({"status": "superseded"}, "not_pending", "is superseded, not pending"),
    ],
)
def test_recommendation_that_is_not_approvable_says_why(changes: dict[str, Any], kind: str, said: str) -> None:
    with pytest.raises(Conflict) as refused:
        require_approvable(recommended(**changes))
    assert refused.value.code == kind
    assert said in refused.value.detail


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"estimated_savings": 99.99}, True),
        ({"estimated_savings": 0.0}, True),
        ({"estimated_savings": 99.99, "status": "approved"}, True),
        ({"estimated_savings": 100.0}, False),
        ({"estimated_savings": -0.01}, False),
        ({"estimated_savings": 1.0, "risk_level": "medium"}, False),
        ({"estimated_savings": 1.0, "risk_level": "high"}, False),
        ({"estimated_savings": 1.0, "status": "rejected"}, False),
        ({"estimated_savings": 1.0, "status": "superseded"}, False),
    ],
)
def test_preferences_approve_low_risk_savings_below_the_limit(changes: dict[str, Any], expected: bool) -> None:
    assert approves_automatically(Preferences(auto_approve_below=100.0), recommended(**changes)) is expected
    assert not approves_automatically(Preferences(auto_approve_below=100.0, paused=True), recommended(**changes))


def test_preferences_by_default_approve_nothing() -> None:
    for savings in (-1.0, 0.0, 1.0):
        assert not approves_automatically(Preferences(), recommended(estimated_savings=savings))
