"""Protocol of an optimization type."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from optiinfra.api.recommendations import Result
from optiinfra.orchestrator.optimizations.context import Detail, InitialContext, P, Snapshot, StepContext

S = TypeVar("S", bound=Snapshot)


@dataclass(frozen=True, slots=True)
class Step(Generic[P, S]):
    """One step under the name that the contract gives it.

    Both actions may be repeated after a crash at any point: they find existing resources before they change
    anything. `rollback` also rolls back a partially executed step.
    """

    name: str
    execute: Callable[[StepContext[P, S]], Awaitable[Detail]]
    rollback: Callable[[StepContext[P, S]], Awaitable[Detail]]


@dataclass(frozen=True, slots=True)
class OptimizationType(Generic[P, S]):
    """One kind of change.

    `instance_ids` names the instances that a change is about: the cloud account follows from them. `take_snapshot` is
    called once, before the first step. `measure_result` measures the result of the completed change, from the
    inventory and telemetry. `is_restored` compares everything that the type changes with the snapshot, after a
    rollback. All of them raise StepError, CommandError, AgentError or CloudError for failures caused by the customer's
    side or the cloud.
    """

    name: str
    parameters: type[P]
    snapshot: type[S]
    steps: Sequence[Step[P, S]]
    instance_ids: Callable[[P], Sequence[str]]
    take_snapshot: Callable[[InitialContext[P]], Awaitable[S]]
    measure_result: Callable[[StepContext[P, S]], Awaitable[Result]]
    is_restored: Callable[[StepContext[P, S]], Awaitable[bool]]

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return tuple(step.name for step in self.steps)

    def step(self, name: str) -> Step[P, S]:
        """The step of that name; LookupError names it when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise LookupError(f"{self.name} has no step {name}; its steps are {', '.join(self.step_names)}")


Registry = Mapping[str, OptimizationType[Any, Any]]
"""Optimization types by name."""


async def nothing_to_roll_back(_context: StepContext[Any, Any]) -> Detail:
    """The rollback of a read-only step."""
    return {}
