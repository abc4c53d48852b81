"""How undoing ends: with what was seen, and never without a word."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dbos import DBOS

from optiinfra.api.common import now
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models


class Undoing(OptimizationWorkflow):
    """Undoes without a platform; `ends` has how it was noted that it ended."""

    def __init__(self, seen: tuple[bool | None, str | None] | Exception) -> None:
        self.seen, self.ends = seen, list[tuple[str, object]]()
        settings = SimpleNamespace(optimization_deadline_seconds=2.0, undo_patience_seconds=900.0)
        self._platform = cast("Platform", SimpleNamespace(settings=settings))

    async def _begin_rollback(self, optimization_id: str, failure: str) -> None:
        """Noted elsewhere."""

    async def _undo(self, optimization_id: str, step: str) -> str | None:
        return None

    async def _look(self, optimization_id: str) -> tuple[bool | None, str | None]:
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen

    async def _finish(self, optimization_id: str, failure: str) -> None:
        self.ends.append(("failed", failure))

    async def _finish_undone(self, optimization_id: str, failure: str, *, restored: bool | None) -> None:
        self.ends.append(("undone", restored))

    async def undo_all(self) -> list[object]:
        """The ends that were noted, and what it raised."""
        begun = ["create_spot_instances", "deploy_canary"]
        (raised,) = await asyncio.gather(self._undo_all("opt_1", begun, "too slow"), return_exceptions=True)
        return [*self.ends, raised]


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps run once, and nothing is recorded."""

    async def run(_options: object, function: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        return await function(*args, **named)

    monkeypatch.setattr(DBOS, "run_step_async", run)


@pytest.mark.parametrize("seen", [True, False, None])
def test_it_ends_with_what_was_seen(seen: bool | None) -> None:
    assert asyncio.run(Undoing((seen, None)).undo_all()) == [("undone", seen), None]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [((None, "AssumeRole: AccessDenied"), "AssumeRole: AccessDenied"), (TypeError("wrong"), "internal error: wrong")],
)
def test_it_ends_also_when_nothing_can_be_seen(trouble: tuple[None, str] | Exception, said: str) -> None:
    why = f"too slow; whether all is as before could not be seen: {said}"
    assert asyncio.run(Undoing(trouble).undo_all()) == [("failed", why), None]


def test_a_step_is_undone_with_all_patience_however_short_the_deadline() -> None:
    row = models.Optimization(started_at=now() - timedelta(seconds=60))
    undoing = Undoing((True, None))
    assert undoing._seconds_left(row, undoing=True) > 900.0, "the cloud's last refusal is what is to be told"
    assert undoing._seconds_left(row, undoing=False) == 0.0
