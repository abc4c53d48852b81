"""How a workflow ends: with what was seen, and never without an end."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dbos import DBOS, DBOSConfiguredInstance

from optiinfra.api.recommendations import Result
from optiinfra.orchestrator.optimizations.executor import StepExecutor
from optiinfra.orchestrator.optimizations.journal import ON_REQUEST
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from tests.unit.orchestrator.optimizations.fakes import draft, platform

STEPS = ("create_spot_instances", "deploy_canary")


class FakeJournal:
    """Notes how an optimization ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str | None, bool | None]] = []

    async def read(self, _optimization_id: str) -> Any:
        change = draft("spot_migration", Result(success=True, predicted_savings=1.0), "dep_1")
        stored = SimpleNamespace(draft=change.model_dump())
        return SimpleNamespace(optimization=SimpleNamespace(snapshot=None), recommendation=stored)

    async def begin_rollback(self, _optimization_id: str, reason: str) -> None:
        """Noted elsewhere."""

    async def finish_rollback(self, _optimization_id: str, status: str, result: Result) -> None:
        self.ends.append((status, result.error, result.original_state_restored))


class FakeExecutor:
    """Rolls steps back without a platform. `seen` is what a look at the restored state says, or raises."""

    def __init__(self, seen: tuple[bool | None, str | None] | Exception) -> None:
        self.seen, self.journal, self.rolled_back = seen, FakeJournal(), list[str]()

    def type_of(self, _record: Any) -> Any:
        return SimpleNamespace(step_names=STEPS)

    async def roll_back(self, _optimization_id: str, name: str) -> str | None:
        self.rolled_back.append(name)
        return None

    async def check_restored(self, _optimization_id: str) -> tuple[bool | None, str | None]:
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen


@pytest.fixture(autouse=True)
def no_dbos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps run once, and nothing is recorded or registered."""

    async def run(_options: object, function: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        return await function(*args, **named)

    monkeypatch.setattr(DBOS, "run_step_async", run)
    monkeypatch.setattr(DBOSConfiguredInstance, "__init__", lambda _self, config_name: None)


def roll_back(executor: FakeExecutor) -> None:
    """Roll a completed optimization back."""
    workflow = OptimizationWorkflow(platform(), cast("StepExecutor", executor))

    async def outcome() -> object:
        running = inspect.unwrap(OptimizationWorkflow.roll_back)(workflow, "opt_1")
        seen: object
        (seen,) = await asyncio.gather(running, return_exceptions=True)
        return seen

    assert asyncio.run(outcome()) is None, "the workflow must note an end, not raise"


@pytest.mark.parametrize(("restored", "status"), [(True, "rolled_back"), (None, "rolled_back"), (False, "failed")])
def test_rollback_reports_restored_state(restored: bool | None, status: str) -> None:
    executor = FakeExecutor((restored, None))
    roll_back(executor)
    assert executor.rolled_back == list(reversed(STEPS))
    assert executor.journal.ends == [(status, ON_REQUEST, restored)]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [((None, "AssumeRole: AccessDenied"), "AssumeRole: AccessDenied"), (TypeError("wrong"), "internal error: wrong")],
)
def test_rollback_ends_when_restored_state_cannot_be_checked(trouble: tuple[None, str] | Exception, said: str) -> None:
    executor = FakeExecutor(trouble)
    roll_back(executor)
    assert executor.journal.ends == [
        ("failed", f"{ON_REQUEST}; could not verify that the original state was restored: {said}", None)
    ]
