"""The risk of drafts, which an agent cannot make lower."""

from typing import Any

import pytest

from optiinfra.api.agents import Draft
from optiinfra.clouds.price_book import PriceBook
from optiinfra.orchestrator.agents.risk import with_platform_risk
from tests.unit.orchestrator.agents.test_answers import ADVICE, MIGRATION, SHUTDOWN

BOOK = PriceBook.load()


def migration(**parameters: Any) -> dict[str, Any]:
    return MIGRATION | {"parameters": MIGRATION["parameters"] | {"interruptions_per_month": 0.0} | parameters}


@pytest.mark.parametrize(
    ("draft", "claimed", "expected"),
    [
        (SHUTDOWN, "low", "low"),
        (SHUTDOWN, "high", "high"),
        (ADVICE, "low", "low"),
        (ADVICE | {"type": "engine_tuning"}, "low", "medium"),
        (ADVICE | {"type": "cross_cloud_placement"}, "low", "high"),
        (migration(count=1), "low", "high"),
        (migration(count=2, instance_type="p4d.24xlarge"), "low", "medium"),  # often interrupted, by the price book
        (migration(count=4, instance_type="p4d.24xlarge"), "low", "low"),
        (migration(count=4, instance_type="p4d.24xlarge"), "medium", "medium"),
        (migration(count=4, instance_type="unknown"), "low", "high"),
    ],
)
def test_risk_is_the_higher_of_the_agents_and_the_platforms(draft: dict[str, Any], claimed: str, expected: str) -> None:
    judged = with_platform_risk(Draft.model_validate(draft | {"risk_level": claimed}), BOOK)
    assert judged.risk_level == expected
    assert judged.model_dump(exclude={"risk_level"}) == Draft.model_validate(draft).model_dump(exclude={"risk_level"})
