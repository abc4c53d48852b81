"""Money, steps, weights, hardware facts."""

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
    assert optimization.undo_order(["a", "b", "c"]) == ["c", "b", "a"]
    assert optimization.undo_name("deploy_canary") == "undo_deploy_canary"


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
