"""What may be approved: only what every validator agreed to, what can be carried out, and what is still pending."""

from typing import Any

import pytest

from optiinfra.api.agents import Validation
from optiinfra.api.recommendations import Recommendation
from optiinfra.kit.problems import Problem
from optiinfra.orchestrator.recommendations.service import _must_be_approvable
from tests.helpers.examples import recommendation


def judged(agent_type: Any, *, approved: bool = True) -> Validation:
    return Validation(agent_type=agent_type, approved=approved, reason="p95 would pass 10 s")


def agreed(**changes: Any) -> Recommendation:
    """One of the cost agent's that both validators agreed to."""
    return recommendation(judged("performance"), judged("application"), **changes)


def test_what_every_validator_agreed_to_may_be_approved() -> None:
    # Neither raises: that is the answer.
    _must_be_approvable(agreed())
    _must_be_approvable(agreed(agent_type="performance", validations=[judged("application")]))


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
        ({"validations": []}, "not_validated", "not yet judged by: performance, application"),
        ({"validations": [judged("performance")]}, "not_validated", "not yet judged by: application"),
        ({"type": "commitment"}, "not_executable", "this is advice"),
        ({"status": "expired"}, "not_pending", "is expired, not pending"),
        ({"status": "rejected"}, "not_pending", "is rejected, not pending"),
        ({"status": "superseded"}, "not_pending", "is superseded, not pending"),
    ],
)
def test_what_may_not_be_approved_says_why(changes: dict[str, Any], kind: str, said: str) -> None:
    with pytest.raises(Problem) as refused:
        _must_be_approvable(agreed(**changes))
    assert (refused.value.status, refused.value.kind) == (409, kind)
    assert said in refused.value.detail
