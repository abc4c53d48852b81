"""What one kind of agent is made of."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optiinfra.api.agents import AnalyzeTask, JudgeTask, TaskAnswer, ValidateTask
from optiinfra.domain.recommendation import AgentType
from optiinfra.stores.clickhouse import Telemetry
from optiinfra.stores.qdrant import OutcomeMemory

AnyTask = AnalyzeTask | ValidateTask | JudgeTask


@dataclass(frozen=True, slots=True)
class Sources:
    """What agents read from."""

    telemetry: Telemetry
    outcomes: OutcomeMemory


Handler = Callable[[Any, Sources], Awaitable[TaskAnswer]]


@dataclass(frozen=True, slots=True)
class AgentKind:
    """One kind of agent: type, service name, what it does by kind of task, and whether it asks for past outcomes."""

    type: AgentType
    service: str
    handlers: Mapping[str, Handler]
    remembers: bool = False

    @property
    def capabilities(self) -> list[str]:
        """The kinds of task that it serves."""
        return sorted(self.handlers)
