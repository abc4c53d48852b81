"""What defines one kind of agent."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optiinfra.agents.base.sources import Sources
from optiinfra.api.agents import AnalyzeTask, JudgeTask, TaskAnswer, ValidateTask
from optiinfra.domain.recommendation import AgentType

AnyTask = AnalyzeTask | ValidateTask | JudgeTask

Handler = Callable[[Any, Sources], Awaitable[TaskAnswer]]
"""Answers tasks of one kind."""


@dataclass(frozen=True, slots=True)
class AgentKind:
    """One kind of agent: type, service name, a handler for each kind of task, and whether it needs past outcomes."""

    type: AgentType
    service: str
    handlers: Mapping[str, Handler]
    needs_outcomes: bool = False

    @property
    def capabilities(self) -> list[str]:
        """The kinds of task that the agent handles."""
        return sorted(self.handlers)
