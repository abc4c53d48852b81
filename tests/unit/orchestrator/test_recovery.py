"""Recovery: what cannot be started does not keep anything else from being started."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator import recovery
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.background import in_progress, is_in_progress
from optiinfra.orchestrator.inventory.service import discovery_of
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


class Unfinished:
    """A database that answers each query of one recovery with the next of these lists, and what is started of them."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers, self.started = list(answers), list[str]()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async def scalars(_query: Any) -> list[str]:
            return self._answers.pop(0)

        yield SimpleNamespace(scalars=scalars)

    async def start(self, one: str) -> None:
        if one == "anal_broken":
            raise ValueError(one)
        if one == "opt_without_store":
            raise StoreUnavailable("PostgreSQL does not answer (OperationalError)")
        self.started.append(one)

    async def recover(self) -> None:
        analyses = cast("AnalysisWorkflow", SimpleNamespace(start=self.start))
        optimizations = cast("OptimizationWorkflow", SimpleNamespace(start=self.start, start_rollback=self.start))
        platform = SimpleNamespace(database=self, settings=SimpleNamespace(inventory_seconds=300.0))
        await recovery.recover(cast("Platform", platform), analyses, optimizations, timedelta())


async def test_recover_starts_the_others_when_one_cannot_be_started() -> None:
    unfinished = Unfinished(["anal_broken", "anal_1"], ["opt_without_store", "opt_1"], ["opt_2"], [], [])
    await unfinished.recover()
    assert unfinished.started == ["anal_1", "opt_1", "opt_2"]


async def test_recover_does_not_wait_for_a_discovery_nor_start_it_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    started, cloud_answers = list[str](), asyncio.Event()

    async def discover(_platform: Platform, customer_id: str) -> None:
        with in_progress(discovery_of(customer_id)):
            started.append(customer_id)
            await cloud_answers.wait()

    async def ended() -> None:
        assert not is_in_progress(discovery_of("cust_1"))

    monkeypatch.setattr(recovery, "discover", discover)
    for _time in range(2):
        await asyncio.wait_for(Unfinished([], [], [], ["cust_1"], []).recover(), 5)
        await asyncio.sleep(0)  # lets the started task take its first step
    assert started == ["cust_1"]
    cloud_answers.set()
    await retry_until_deadline(ended, "the discovery to end", 5.0, interval=0.01)
    await Unfinished([], [], [], ["cust_1"], []).recover()
    await asyncio.sleep(0)
    assert started == ["cust_1", "cust_1"]
