"""Looking for what was left: nobody's trouble keeps back what somebody else was promised."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator import sweep
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.background import is_under_way, under_way
from optiinfra.orchestrator.inventory.service import discovery_of
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Left:
    """A database that answers each question of a look with the next of these lists, and what is begun of them."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers, self.begun = list(answers), list[str]()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async def scalars(_query: Any) -> list[str]:
            return self._answers.pop(0)

        yield SimpleNamespace(scalars=scalars)

    async def begin(self, one: str) -> None:
        if one == "anal_broken":
            raise ValueError(one)
        if one == "opt_without_store":
            raise StoreUnavailable("PostgreSQL does not answer (OperationalError)")
        self.begun.append(one)

    async def sweep(self) -> None:
        analyses = cast("AnalysisWorkflow", SimpleNamespace(start=self.begin))
        runs = cast("OptimizationWorkflow", SimpleNamespace(start=self.begin, start_rollback=self.begin))
        await sweep._sweep(cast("Platform", SimpleNamespace(database=self)), analyses, runs, timedelta())


async def test_what_cannot_be_begun_keeps_nobody_else_back() -> None:
    left = Left(["anal_broken", "anal_1"], ["opt_without_store", "opt_1"], ["opt_2"], [], [])
    await left.sweep()
    assert left.begun == ["anal_1", "opt_1", "opt_2"]


async def test_a_cloud_that_does_not_answer_is_not_waited_for_and_not_asked_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, answers = list[str](), asyncio.Event()

    async def discover(_platform: Platform, customer_id: str) -> None:
        with under_way(discovery_of(customer_id)):
            begun.append(customer_id)
            await answers.wait()

    async def over() -> None:
        assert not is_under_way(discovery_of("cust_1"))

    monkeypatch.setattr(sweep, "discover", discover)
    for _look in range(2):
        await asyncio.wait_for(Left([], [], [], ["cust_1"], []).sweep(), 5)
        await asyncio.sleep(0)  # lets what was begun take its first step
    assert begun == ["cust_1"]
    answers.set()
    await retry_until_deadline(over, "the discovery to end", 5.0, interval=0.01)
    await Left([], [], [], ["cust_1"], []).sweep()
    await asyncio.sleep(0)
    assert begun == ["cust_1", "cust_1"]
