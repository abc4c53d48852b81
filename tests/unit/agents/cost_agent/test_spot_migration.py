"""The rule for spot migrations: which deployments can move, what that saves, and why others cannot."""

import math
from dataclasses import replace
from typing import Any

import pytest

from optiinfra.agents.base.observed import Load
from optiinfra.agents.cost_agent.spot_migration import Candidate, change_of, consider, draft, modelled_p95
from optiinfra.api.agents import Draft
from optiinfra.api.customers import Instance, Preferences
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.clouds.price_book import PriceBook
from optiinfra.domain.outcomes import DIMENSIONS, Outcome, features
from tests.unit.agents.estate import LOAD, deployment, instances

BOOK = PriceBook.load()
QUOTE = {"us-east-1/p4de.24xlarge": 14.84}


def candidate(**changes: Any) -> Candidate:
    owned = instances()
    found = consider(deployment(owned, **changes), owned, Preferences(), BOOK, QUOTE)
    assert isinstance(found, Candidate), found
    return found


def drafted(outcomes: list[Outcome]) -> Draft:
    found = candidate()
    return draft(found, features(change_of(found, LOAD)), modelled_p95(found, LOAD), outcomes)


def in_two_accounts() -> list[Instance]:
    accounts = ("111111111111", "222222222222")
    return [
        instance.model_copy(update={"account_id": account})
        for instance, account in zip(instances(), accounts, strict=True)
    ]


def outcome(found: Draft, share: float, similarity: float = 0.99) -> Outcome:
    """A past migration whose measured figures were `share` of the modelled ones."""
    measured = {figure: value * share for figure, value in found.modelled.items()}
    return Outcome("opt_1", similarity, dict(found.modelled), measured)


def test_draft_of_the_sample_deployment_saves_about_18_000_dollars_a_month() -> None:
    found = drafted([])
    difference = 2 * 730 * (27.44705 - 14.84)
    rate = BOOK.interruptions_per_month("aws", "us-east-1", "p4de.24xlarge")
    allowance = 2 * rate * (24 * (27.44705 - 14.84) + 27.44705)
    assert found.estimated_savings == pytest.approx(difference - allowance, abs=0.01)
    assert found.estimated_savings == pytest.approx(18_000, rel=0.04)
    assert found.predicted.monthly_cost == pytest.approx(40_072.69 - found.estimated_savings, abs=0.02)
    assert found.affected_resources == ["dep_1", "i-0", "i-1"]
    parameters = SpotMigrationParameters.model_validate(found.parameters)
    assert (parameters.count, parameters.spot_price, parameters.region) == (2, 14.84, "us-east-1")
    assert len(found.features) == DIMENSIONS
    assert "$40,073" in found.explanation


@pytest.mark.parametrize(
    ("reason", "owned", "changes", "preferences", "quotes"),
    [
        ("does not allow interruptions", instances(), {"interruptible": False}, {}, {}),
        ("on spot instances already", instances(lifecycle="spot"), {}, {}, {}),
        ("1 of its 2 instances are on spot", [*instances(1), *instances(2, lifecycle="spot")[1:]], {}, {}, {}),
        ("do not allow spot", instances(), {}, {"spot_allowed": False}, {}),
        ("do not list aws", instances(), {}, {"providers": ["gcp"]}, {}),
        ("several cloud accounts (111111111111, 222222222222)", in_two_accounts(), {}, {}, {}),
        ("several instance types", [*instances(1), *instances(2, "p5.48xlarge")[1:]], {}, {}, {}),
        ("no price of p4de.24xlarge in aws mars-1", instances(region="mars-1"), {}, {}, {}),
        ("risk is high, above your limit (medium)", instances(1), {}, {}, {}),
        ("would save nothing", instances(), {}, {}, {"us-east-1/p4de.24xlarge": 27.447}),
        ("none of its instances is running", [], {}, {}, {}),
    ],
)
def test_ineligible_deployment_is_explained(
    reason: str, owned: list[Any], changes: dict[str, Any], preferences: dict[str, Any], quotes: dict[str, float]
) -> None:
    found = consider(deployment(owned, **changes), owned, Preferences(**preferences), BOOK, quotes)
    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize("share", [0.8, 1.05])
def test_past_outcome_moves_the_estimate_towards_the_measurement(share: float) -> None:
    before = drafted([])
    after = drafted([outcome(before, share)])
    measured = before.modelled["savings"] * share
    assert abs(after.estimated_savings - measured) < abs(before.estimated_savings - measured)
    assert after.modelled == before.modelled
    assert after.similar_outcomes == ["opt_1"]
    assert after.confidence > before.confidence
    assert before.predicted.p95_latency_ms is not None
    assert after.predicted.p95_latency_ms is not None
    assert math.copysign(1, after.predicted.p95_latency_ms - before.predicted.p95_latency_ms) == math.copysign(
        1, share - 1
    )


@pytest.mark.parametrize(
    ("changes", "load"),
    [
        ({}, replace(LOAD, output_tokens=None)),
        ({}, replace(LOAD, output_tokens=0.0)),
        ({"model": "someone/unknown-9B"}, LOAD),
        ({"engine_args": {"quantization": "int3"}}, LOAD),
    ],
)
def test_draft_without_modelled_latency_has_lower_confidence(changes: dict[str, Any], load: Load) -> None:
    found = candidate(**changes)
    unsure = draft(found, [], modelled_p95(found, load), [])
    assert unsure.predicted.p95_latency_ms is None
    assert "p95_latency_ms" not in unsure.modelled
    assert unsure.confidence < drafted([]).confidence


def test_modelled_latency_is_that_of_the_same_engines_under_the_same_load() -> None:
    found = candidate()
    assert modelled_p95(found, LOAD) == pytest.approx(LOAD.p95_latency_ms, rel=0.01)
    assert modelled_p95(found, replace(LOAD, requests_per_second=60.0)) is None  # more than two of these can carry
