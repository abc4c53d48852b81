"""Money, steps, weights, hardware facts."""

from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain import hardware, optimization, recommendation, savings


def test_a_month_has_730_hours() -> None:
    assert savings.monthly(27.44705, count=2) == pytest.approx(40_072.69, abs=0.01)


def test_reduction_is_a_share_of_the_cost_before() -> None:
    assert savings.reduction_percent(200.0, 150.0) == pytest.approx(25.0)
    assert savings.reduction_percent(100.0, 120.0) == pytest.approx(-20.0)
    with pytest.raises(ValueError, match="above 0"):
        savings.reduction_percent(0.0, 10.0)


def test_totals_are_rounded_to_cents() -> None:
    assert savings.total([0.1, 0.2]) == 0.3


def test_spot_migration_has_the_seven_steps_in_order() -> None:
    assert optimization.STEPS["spot_migration"] == (
        "create_spot_instances",
        "deploy_canary",
        "validate_canary",
        "scale_to_50_percent",
        "validate_50_percent",
        "full_migration",
        "terminate_ondemand",
    )


def test_undoing_begins_with_the_step_that_was_begun_last() -> None:
    assert optimization.rollback_order(["a", "b", "c"]) == ["c", "b", "a"]
    assert optimization.rollback_step("deploy_canary") == "undo_deploy_canary"


@given(
    st.lists(st.integers(), unique=True, max_size=8), st.lists(st.integers(), unique=True, max_size=8), st.floats(0, 1)
)
def test_weights_always_sum_to_one(old: list[int], new: list[int], share: float) -> None:
    before, after = [f"old-{n}" for n in old], [f"new-{n}" for n in new]
    if (not before and share < 1) or (not after and share > 0):
        with pytest.raises(ValueError, match="of the traffic on"):
            optimization.shifted_weights(before, after, share)
        return
    weights = optimization.shifted_weights(before, after, share)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert set(weights) == {*before, *after}
    if before and after:
        assert sum(weights[name] for name in after) == pytest.approx(share)


def test_risk_is_ordered() -> None:
    assert recommendation.within_risk("low", "medium")
    assert recommendation.within_risk("medium", "medium")
    assert not recommendation.within_risk("high", "medium")


def test_nobody_judges_their_own_recommendation() -> None:
    assert recommendation.validators_of("cost") == ["performance", "application"]
    assert recommendation.validators_of("performance") == ["application"]
    assert recommendation.validators_of("application") == ["performance"]


def test_known_quantizations_and_an_unknown_one() -> None:
    assert hardware.bytes_per_weight(None) == 2.0
    assert hardware.bytes_per_weight("fp8") == 1.0
    with pytest.raises(ValueError, match="unknown quantization 'fp7'; known: null, fp8"):
        hardware.bytes_per_weight("fp7")


def test_fp8_halves_the_kv_cache() -> None:
    assert hardware.bytes_per_kv_element("fp8_e5m2") * 2 == hardware.bytes_per_kv_element("auto")


def test_every_model_that_the_contract_names_is_known() -> None:
    assert {
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "Qwen/Qwen2.5-32B-Instruct",
        "deepseek-ai/DeepSeek-V2-Lite",
    } <= hardware.MODELS.keys()


@given(st.floats(0.01, 1e4), st.integers(0, 1000), st.integers(0, 1000))
def test_instances_cost_together_what_they_cost_apart(hourly: float, some: int, others: int) -> None:
    together = savings.monthly(hourly, some + others)
    assert together == pytest.approx(savings.monthly(hourly, some) + savings.monthly(hourly, others))


@given(st.floats(0.01, 1e9), st.floats(0, 10))
def test_a_reduction_leads_from_the_cost_before_to_the_one_after(before: float, times: float) -> None:
    after = before * times
    percent = savings.reduction_percent(before, after)
    assert percent <= 100.0
    assert before * (1 - percent / 100) == pytest.approx(after, abs=1e-6 * before)


@given(st.lists(st.integers(0, 10**9), max_size=30), st.randoms(use_true_random=False))
def test_a_total_does_not_depend_on_the_order(cents: list[int], rng: Random) -> None:
    costs = [each / 100 for each in cents]
    before = savings.total(costs)
    rng.shuffle(costs)
    assert savings.total(costs) == before == pytest.approx(sum(cents) / 100, abs=0.005)


@given(st.lists(st.sampled_from(optimization.STEPS["spot_migration"]), unique=True))
def test_undoing_undoes_what_was_begun_and_nothing_else(begun: list[str]) -> None:
    undone = optimization.rollback_order(begun)
    assert sorted(undone) == sorted(begun)
    assert optimization.rollback_order(undone) == begun


agent_types = st.sampled_from(get_args(recommendation.AgentType))


@given(agent_types, st.lists(agent_types))
def test_who_is_awaited_has_not_spoken_and_may(proposer: recommendation.AgentType, heard: list[Any]) -> None:
    awaited = recommendation.pending_validators(proposer, heard)
    assert not {proposer, *heard} & set(awaited)
    assert {*awaited, *heard} >= set(recommendation.validators_of(proposer))
    assert recommendation.validators_of(proposer), "somebody must judge it"


@given(*[st.sampled_from(get_args(recommendation.RiskLevel))] * 3)
def test_who_accepts_a_risk_accepts_every_smaller_one(low: Any, mid: Any, high: Any) -> None:
    assert recommendation.within_risk(low, low)
    assert recommendation.within_risk(low, mid) or recommendation.within_risk(mid, low)
    if recommendation.within_risk(low, mid) and recommendation.within_risk(mid, high):
        assert recommendation.within_risk(low, high)


@pytest.mark.parametrize("model", hardware.MODELS.values(), ids=lambda model: model.name)
def test_a_model_is_described_in_plausible_figures(model: hardware.Model) -> None:
    assert 1e8 < model.active_parameters <= model.parameters < 2e12
    assert model.kv_elements_per_token % model.layers == 0


@pytest.mark.parametrize("machine", hardware.INSTANCE_TYPES.values(), ids=lambda machine: machine.name)
def test_a_machine_is_described_in_plausible_figures(machine: hardware.InstanceType) -> None:
    assert machine.gpu_count in (1, 2, 4, 8)
    # A byte is read in the time of at least ten operations on every card there is: decoding is bound by memory.
    assert machine.gpu.flops > 10 * machine.gpu.bandwidth
    # Reading all of its memory takes a card between 10 and 100 ms.
    assert 0.01 < machine.gpu.memory / machine.gpu.bandwidth < 0.1
