from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain import recommendation

agent_types = st.sampled_from(get_args(recommendation.AgentType))


def test_within_risk_compares_risk_levels() -> None:
    assert recommendation.within_risk("low", "medium")
    assert recommendation.within_risk("medium", "medium")
    assert not recommendation.within_risk("high", "medium")


def test_validators_exclude_the_proposer() -> None:
    assert recommendation.validators_of("cost") == ["performance", "application"]
    assert recommendation.validators_of("performance") == ["application"]
    assert recommendation.validators_of("application") == ["performance"]


@given(agent_types, st.lists(agent_types))
def test_pending_validators_are_those_without_a_verdict(
    proposer: recommendation.AgentType, validated_by: list[Any]
) -> None:
    pending = recommendation.pending_validators(proposer, validated_by)
    assert not {proposer, *validated_by} & set(pending)
    assert {*pending, *validated_by} >= set(recommendation.validators_of(proposer))
    assert recommendation.validators_of(proposer), "every recommendation needs a validator"


@given(*[st.sampled_from(get_args(recommendation.RiskLevel))] * 3)
def test_within_risk_is_a_total_order(low: Any, mid: Any, high: Any) -> None:
    assert recommendation.within_risk(low, low)
    assert recommendation.within_risk(low, mid) or recommendation.within_risk(mid, low)
    if recommendation.within_risk(low, mid) and recommendation.within_risk(mid, high):
        assert recommendation.within_risk(low, high)
