"""The cost agent's analysis: every recommendation type's rule over one customer's infrastructure."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from optiinfra.agents.base.sources import Sources
from optiinfra.agents.base.summary import summary_of
from optiinfra.agents.cost_agent.finding import Finding
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask

Rule = Callable[[AnalyzeTask, Sources], Awaitable[list[Finding]]]
"""Looks for recommendations of one type."""


async def analyze(task: AnalyzeTask, sources: Sources, *, rules: Sequence[Rule]) -> AnalyzeAnswer:
    """Apply all rules; `summary` lists what each found, and why something was not recommended."""
    found = await asyncio.gather(*(rule(task, sources) for rule in rules))
    findings = [finding for of_rule in found for finding in of_rule]
    summary = summary_of([finding.summary for finding in findings], "there is no deployment yet")
    return AnalyzeAnswer(drafts=[finding.draft for finding in findings if finding.draft is not None], summary=summary)
