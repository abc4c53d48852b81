import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain import optimization


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


def test_rollback_begins_with_the_last_step() -> None:
    assert optimization.rollback_order(["a", "b", "c"]) == ["c", "b", "a"]
    assert optimization.rollback_step("deploy_canary") == "undo_deploy_canary"


@given(
    st.lists(st.integers(), unique=True, max_size=8), st.lists(st.integers(), unique=True, max_size=8), st.floats(0, 1)
)
def test_shifted_weights_sum_to_one_with_the_share_on_new_replicas(
    old: list[int], new: list[int], share: float
) -> None:
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


@given(st.lists(st.sampled_from(optimization.STEPS["spot_migration"]), unique=True))
def test_rollback_order_reverses_the_started_steps(begun: list[str]) -> None:
    rolled_back = optimization.rollback_order(begun)
    assert sorted(rolled_back) == sorted(begun)
    assert optimization.rollback_order(rolled_back) == begun
