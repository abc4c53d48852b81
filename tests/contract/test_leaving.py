"""A customer's deletion that a store's outage interrupts: nobody need ask for it again."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select

from optiinfra.kit.problems import Problem
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator import sweep
from optiinfra.orchestrator.background import is_under_way
from optiinfra.orchestrator.customers import service as customers
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = pytest.mark.anyio


class Copies:
    """Holds something of the customer, and is away for the first so many deletions."""

    def __init__(self, away_for: int = 0) -> None:
        self.away_for, self.kept = away_for, True

    async def delete_customer(self, customer_id: str) -> None:
        assert customer_id == CUSTOMER
        if self.away_for:
            self.away_for -= 1
            raise StoreUnavailable("it does not answer (OperationalError)")
        self.kept = False


class Stores:
    """A platform of PostgreSQL and two stores with copies."""

    def __init__(self, database: Database) -> None:
        self.telemetry, self.memory = Copies(), Copies()
        self.platform = cast(
            "Platform", SimpleNamespace(database=database, telemetry=self.telemetry, memory=self.memory)
        )

    async def leaving(self) -> list[str]:
        async with self.platform.database.transaction() as session:
            return list(await session.scalars(select(models.Leaving.customer_id)))

    async def swept(self) -> None:
        """Everything that was left is looked for once, and what was begun has ended."""

        async def ended() -> None:
            assert not is_under_way(customers.removal_of(CUSTOMER))

        nothing: Any = SimpleNamespace(start=None, start_rollback=None)  # there is neither analysis nor optimization
        await sweep._sweep(self.platform, nothing, nothing, timedelta())
        await asyncio.sleep(0)  # lets what was begun take its first step
        await retry_until_deadline(ended, "the deletion to end", 5.0, interval=0.01)


@pytest.fixture
async def stores(database: Database, customer: None, monkeypatch: pytest.MonkeyPatch) -> Stores:
    async def delete_workflows(_customer_id: str) -> None:
        """There is no workflow."""

    monkeypatch.setattr(customers, "delete_workflows", delete_workflows)
    return Stores(database)


async def test_who_leaves_is_gone_at_once(stores: Stores) -> None:
    await customers.remove(stores.platform, CUSTOMER)
    assert await stores.leaving() == []
    assert not stores.telemetry.kept
    assert not stores.memory.kept
    with pytest.raises(Problem, match="no such customer"):
        await customers.remove(stores.platform, CUSTOMER)


@pytest.mark.parametrize("away", ["telemetry", "memory"])
async def test_what_an_outage_kept_is_deleted_after_it(stores: Stores, away: str) -> None:
    getattr(stores, away).away_for = 2
    with pytest.raises(StoreUnavailable):
        await customers.remove(stores.platform, CUSTOMER)
    assert await stores.leaving() == [CUSTOMER]
    await stores.swept()
    assert await stores.leaving() == [CUSTOMER], "the store was still away"
    await stores.swept()
    assert await stores.leaving() == []
    assert not stores.telemetry.kept
    assert not stores.memory.kept
