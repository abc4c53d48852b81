"""Which drafts of an agent are kept."""

from typing import Any

from optiinfra.api.agents import AnalyzeAnswer, Draft
from optiinfra.clouds.price_book import PriceBook
from optiinfra.orchestrator.analyses.screening import screened
from tests.unit.orchestrator.agents.test_answers import MIGRATION, SHUTDOWN

BOOK = PriceBook.load()


def answer(*drafts: dict[str, Any]) -> AnalyzeAnswer:
    return AnalyzeAnswer(drafts=[Draft.model_validate(draft) for draft in drafts], summary="Found some.")


def test_draft_whose_risk_the_platform_raises_above_the_limit_is_left_out() -> None:
    risky = MIGRATION | {"parameters": MIGRATION["parameters"] | {"count": 1}, "risk_level": "low"}
    drafts, summary = screened(answer(risky, SHUTDOWN), BOOK, "medium", set())
    assert [(draft.type, draft.risk_level) for draft in drafts] == [("idle_shutdown", "low")]
    assert summary == "Found some. 1 left out: the risk is above your limit (medium)."
    drafts, summary = screened(answer(risky, SHUTDOWN), BOOK, "high", set())
    assert [draft.risk_level for draft in drafts] == ["high", "low"]
    assert summary == "Found some."


def test_similar_outcomes_are_those_of_the_customer() -> None:
    claimed = SHUTDOWN | {"similar_outcomes": ["opt_mine", "opt_theirs", "opt_also"]}
    ((draft,), _) = screened(answer(claimed), BOOK, "low", {"opt_mine", "opt_also", "opt_third"})
    assert draft.similar_outcomes == ["opt_mine", "opt_also"]
