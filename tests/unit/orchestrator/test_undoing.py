"""How undoing ends: with what was seen, and never without a word."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dbos import DBOS

from optiinfra.clouds.protocol import RoleDenied
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow


class Undoing(OptimizationWorkflow):
    """Undoes without a platform; `ends` has how it was noted that it ended."""

    def __init__(self, seen: bool | Exception | None) -> None:
        self.seen, self.ends = seen, list[tuple[str, object]]()

    async def _begin_rollback(self, optimization_id: str, failure: str) -> None:
        """Noted elsewhere."""

    async def _undo(self, optimization_id: str, step: str) -> str | None:
        return None

    async def _look(self, optimization_id: str) -> bool | None:
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
    assert asyncio.run(Undoing(seen).undo_all()) == [("undone", seen), None]


@pytest.mark.parametrize("trouble", [RoleDenied("no"), RuntimeError("a defect")])
def test_it_ends_also_when_nothing_can_be_seen(trouble: Exception) -> None:
    why = f"too slow; whether all is as before could not be seen: {trouble}"
    assert asyncio.run(Undoing(trouble).undo_all()) == [("failed", why), None]
