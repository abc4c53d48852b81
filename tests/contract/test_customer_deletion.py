"""Deletion of a customer that an outage of a store interrupts: recovery finishes it."""

import asyncio
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select

from optiinfra.clouds import connections
from optiinfra.clouds.aws import AwsCloud
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator import recovery
from optiinfra.orchestrator.background import is_in_progress
from optiinfra.orchestrator.customers import deletion
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores import redis
from optiinfra.stores.audit_heads import AuditHeads
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER
from tests.unit.clouds.ec2 import Ec2

pytestmark = pytest.mark.anyio


class Copies:
    """A store with data of the customer that is unavailable for the first `outages` deletions."""

    def __init__(self, outages: int = 0) -> None:
        self.outages, self.kept = outages, True

    async def delete_customer(self, customer_id: str) -> None:
        assert customer_id == CUSTOMER
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("it does not answer (OperationalError)")
        self.kept = False


class Stores:
    """A platform of PostgreSQL and two stores with copies."""

    def __init__(self, database: Database) -> None:
        self.telemetry, self.memory = Copies(), Copies()
        self.platform = cast(
            "Platform",
            SimpleNamespace(
                database=database,
                telemetry=self.telemetry,
                memory=self.memory,
                audit_heads=AuditHeads(redis.connect("redis://127.0.0.1:9"), "unreachable"),
                settings=SimpleNamespace(inventory_seconds=300.0, audit_key="k" * 48),
            ),
        )

    async def in_deletion(self) -> list[str]:
        async with self.platform.database.transaction() as session:
            return list(await session.scalars(select(models.CustomerDeletion.customer_id)))

    async def recover(self) -> None:
        """Recover once, and wait until the deletion that it started has ended."""

        async def ended() -> None:
            assert not is_in_progress(deletion.deletion_of(CUSTOMER))

        nothing: Any = SimpleNamespace(start=None, start_rollback=None)  # there is neither analysis nor optimization
        await recovery.recover(self.platform, nothing, nothing, timedelta())
        await asyncio.sleep(0)  # lets the started task take its first step
        await retry_until_deadline(ended, "the deletion to end", 5.0, interval=0.01)


@pytest.fixture
async def stores(database: Database, customer: None, monkeypatch: pytest.MonkeyPatch) -> Stores:
    async def delete_workflows(_customer_id: str) -> None:
        """There is no workflow."""

    monkeypatch.setattr(deletion, "delete_workflows", delete_workflows)
    return Stores(database)


async def test_delete_customer_removes_all_data_at_once(stores: Stores) -> None:
    await deletion.delete_customer(stores.platform, CUSTOMER, "user")
    assert await stores.in_deletion() == []
    assert not stores.telemetry.kept
    assert not stores.memory.kept
    with pytest.raises(NotFound, match="no such customer"):
        await deletion.delete_customer(stores.platform, CUSTOMER, "user")


@pytest.mark.parametrize("outages", [0, 1])
async def test_delete_customer_forgets_its_roles_only(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, outages: int
) -> None:
    async with stores.platform.database.transaction() as session:
        external_id = (await session.get_one(models.Customer, CUSTOMER)).external_id
    monkeypatch.setattr(connections, "role_clients", lambda *_account: Ec2().clients)

    async def enter(external_id: str) -> AwsCloud:
        return await connections.connect_aws(None, "us-east-1", "arn", external_id, "key", "secret")

    mine, other = await enter(external_id), await enter("another customer's")
    assert await enter(external_id) is mine
    stores.memory.outages = outages
    with pytest.raises(StoreUnavailable) if outages else nullcontext():
        await deletion.delete_customer(stores.platform, CUSTOMER, "user")
    assert await enter(external_id) is not mine
    assert await enter("another customer's") is other
    await stores.recover()


@pytest.mark.parametrize("store", ["telemetry", "memory"])
async def test_delete_customer_interrupted_by_an_outage_is_finished_by_recovery(stores: Stores, store: str) -> None:
    getattr(stores, store).outages = 2
    with pytest.raises(StoreUnavailable):
        await deletion.delete_customer(stores.platform, CUSTOMER, "user")
    assert await stores.in_deletion() == [CUSTOMER]
    await stores.recover()
    assert await stores.in_deletion() == [CUSTOMER], "the store was still unavailable"
    await stores.recover()
    assert await stores.in_deletion() == []
    assert not stores.telemetry.kept
    assert not stores.memory.kept
