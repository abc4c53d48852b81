"""The cost agent's analysis: the findings of all rules in one answer."""

import pytest

from optiinfra.agents.base.sources import Sources
from optiinfra.agents.cost_agent.analysis import Rule, analyze
from optiinfra.agents.cost_agent.finding import Finding
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask, Draft
from optiinfra.api.customers import Preferences
from tests.unit.agents.estate import infrastructure
from tests.unit.agents.fakes import fake_sources
from tests.unit.agents.tasks import validation_task

pytestmark = pytest.mark.anyio


def draft(title: str) -> Draft:
    return validation_task("idle_shutdown").draft.model_copy(update={"title": title})


async def answer(*rules: Rule) -> AnalyzeAnswer:
    task = AnalyzeTask(task_id="t", customer_id="c", preferences=Preferences(), infrastructure=infrastructure([]))
    return await analyze(task, fake_sources(), rules=rules)


def rule(*findings: Finding) -> Rule:
    async def find(_task: AnalyzeTask, _sources: Sources) -> list[Finding]:
        return list(findings)

    return find


async def test_drafts_and_summary_cover_the_findings_of_all_rules() -> None:
    found = await answer(
        rule(Finding(draft("first"), "chat: saves"), Finding(None, "search: stays")),
        rule(Finding(draft("second"), "idle")),
    )
    assert [one.title for one in found.drafts] == ["first", "second"]
    assert found.summary == "chat: saves; search: stays; idle"


async def test_summary_of_an_empty_estate_says_that_there_is_no_deployment() -> None:
    found = await answer(rule(), rule())
    assert (found.drafts, found.summary) == ([], "there is no deployment yet")
