"""The least risk of each type of change."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra.domain.recommendation import RecommendationType, RiskLevel
from optiinfra.domain.risk import LEAST, highest, spot_risk


def test_every_type_has_a_least_risk() -> None:
    assert LEAST.keys() == set(get_args(RecommendationType))
    assert {kind for kind, risk in LEAST.items() if risk == "low"} == {
        "spot_migration",
        "idle_shutdown",
        "commitment",
        "region_advice",
        "scale_out",
    }


@given(st.integers(1, 100), st.floats(0, 1), st.floats(0, 1))
def test_spot_risk_grows_with_interruptions_and_falls_with_replicas(replicas: int, one: float, other: float) -> None:
    order = ["low", "medium", "high"]
    rarely, often = sorted((one, other))
    assert order.index(spot_risk(replicas, rarely)) <= order.index(spot_risk(replicas, often))
    assert order.index(spot_risk(replicas + 1, often)) <= order.index(spot_risk(replicas, often))


@pytest.mark.parametrize(
    ("replicas", "rate", "risk"), [(1, 0.0, "high"), (2, 0.025, "low"), (2, 0.25, "medium"), (4, 0.25, "low")]
)
def test_spot_risk_by_replicas_and_interruption_rate(replicas: int, rate: float, risk: str) -> None:
    assert spot_risk(replicas, rate) == risk


@pytest.mark.parametrize(
    ("risks", "expected"), [(("low", "low"), "low"), (("medium", "low"), "medium"), (("low", "medium", "high"), "high")]
)
def test_highest_risk_counts(risks: tuple[RiskLevel, ...], expected: str) -> None:
    assert highest(*risks) == highest(*reversed(risks)) == expected
