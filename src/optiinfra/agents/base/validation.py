"""Validation of other agents' recommendations: one rule for each recommendation type."""

from collections.abc import Awaitable, Callable, Mapping

from optiinfra.agents.base.sources import Sources
from optiinfra.api.agents import ValidateTask, Validation
from optiinfra.domain.recommendation import AgentType, RecommendationType

Rule = Callable[[ValidateTask, Sources], Awaitable[Validation]]
Rules = Mapping[RecommendationType, Rule]


async def apply(agent_type: AgentType, rules: Rules, task: ValidateTask, sources: Sources) -> Validation:
    """What the rule for the recommendation's type says; a type without a rule is refused."""
    rule = rules.get(task.draft.type)
    if rule is None:
        known = ", ".join(sorted(rules))
        reason = f"the {agent_type} agent has no validation rule for {task.draft.type}; it has rules for: {known}"
        return Validation(agent_type=agent_type, approved=False, reason=reason)
    return await rule(task, sources)
