"""Telemetry that is inserted while its customer is deleted."""

import asyncio
import math
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.api.common import now
from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from optiinfra.kit import tasks
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.telemetry import service as telemetry
from optiinfra.orchestrator.telemetry.parsing import Columns
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres.reads import Query
from tests.unit.logs import logged

pytestmark = pytest.mark.anyio


class Stores:
    """A platform whose one customer is deleted during the `deleted_at`-th insert into the telemetry."""

    def __init__(self, deleted_at: int | None, breaks: bool = False) -> None:
        self.exists = True
        self.rows: list[tuple[Any, ...]] = []
        self._inserts, self._deleted_at, self._breaks = 0, deleted_at, breaks
        self.platform = cast("Platform", SimpleNamespace(telemetry=self, database=self))

    async def read(self, _query: Query, customer_id: str, **_: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=customer_id, deployment_ids=["dep_1"])] if self.exists else []

    async def insert_samples(self, rows: list[Any], _token: str | None = None) -> None:
        await self.insert_columns("samples", list(zip(*rows, strict=True)))

    async def insert_columns(self, table: str, columns: list[Any], _token: str | None = None) -> None:
        self._inserts += 1
        if self._inserts == self._deleted_at:  # the deletion is over before the rows are in
            self.exists, self.rows = False, []
        self.rows += [(table, *row) for row in zip(*columns, strict=True)]
        if self._breaks and self._inserts == 2:
            raise RuntimeError("the connection broke")

    async def delete_customer(self, customer_id: str) -> None:
        assert customer_id == "cust_1"
        self.rows = []


AT = now()
BATCH = Columns.of(
    TelemetryBatch.of(
        samples=[Sample(deployment_id="dep_1", metric="throughput", timestamp=AT, value=1.0)],
        latencies=[
            LatencyCount(deployment_id="dep_1", replica_id="rep_1", timestamp=AT, le=0.5, count=3),
            LatencyCount(deployment_id="dep_1", replica_id="rep_1", timestamp=AT, le=None, count=4),
        ],
    )
)


async def test_store_keeps_the_batch_of_an_existing_customer() -> None:
    stores = Stores(deleted_at=None)
    await telemetry.store(stores.platform, "cust_1", BATCH, None)
    assert stores.rows == [
        ("samples", "cust_1", "dep_1", "", "throughput", AT, 1.0),
        ("latency_counts", "cust_1", "dep_1", "rep_1", AT, 0.5, 3),
        ("latency_counts", "cust_1", "dep_1", "rep_1", AT, math.inf, 4),
    ]


@pytest.mark.parametrize("deleted_at", [1, 2], ids=["during its samples", "during its latencies"])
async def test_store_of_a_customer_deleted_meanwhile_keeps_nothing(deleted_at: int) -> None:
    stores = Stores(deleted_at)
    await telemetry.store(stores.platform, "cust_1", BATCH, None)
    assert stores.rows == []


async def test_store_that_fails_half_way_of_a_deleted_customer_keeps_nothing() -> None:
    stores = Stores(deleted_at=1, breaks=True)
    with pytest.raises(RuntimeError, match="broke"):
        await telemetry.store(stores.platform, "cust_1", BATCH, None)
    assert stores.rows == []


async def test_store_figure_cancelled_of_a_deleted_customer_keeps_nothing() -> None:
    stores, begun, goes_on, ended = Stores(deleted_at=None), asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def insert(rows: list[Any], _token: str | None = None) -> None:
        def in_a_thread() -> None:
            loop.call_soon_threadsafe(begun.set)
            goes_on.wait(5)
            stores.rows += rows
            ended.set()

        await asyncio.to_thread(in_a_thread)

    stores.insert_samples = insert  # type: ignore[method-assign]
    figure = asyncio.create_task(telemetry.store_figure(stores.platform, "cust_1", "dep_1", "quality_score", 0.9))
    await asyncio.wait_for(begun.wait(), 5)
    stores.exists = False
    figure.cancel()
    loop.call_later(0.05, goes_on.set)
    with pytest.raises(asyncio.CancelledError):
        await figure
    assert await asyncio.to_thread(ended.wait, 5)
    assert stores.rows == []


async def test_store_figure_of_a_customer_deleted_meanwhile_keeps_nothing() -> None:
    stores = Stores(deleted_at=1)
    await telemetry.store_figure(stores.platform, "cust_1", "dep_1", "quality_score", 0.9)
    assert stores.rows == []


@pytest.mark.parametrize(
    ("failure", "logged_at"), [(RuntimeError("a defect"), ["error"]), (StoreUnavailable("ClickHouse is away"), [])]
)
async def test_store_figure_cancelled_logs_a_defect_of_the_insert(failure: Exception, logged_at: list[str]) -> None:
    stores, begun, goes_on = Stores(deleted_at=None), asyncio.Event(), asyncio.Event()

    async def insert(rows: list[Any], _token: str | None = None) -> None:
        begun.set()
        await goes_on.wait()
        raise failure

    stores.insert_samples = insert  # type: ignore[method-assign]
    with logged(tasks) as logs:
        figure = asyncio.create_task(telemetry.store_figure(stores.platform, "cust_1", "dep_1", "quality_score", 0.9))
        async with asyncio.timeout(5):
            await begun.wait()
        figure.cancel()
        asyncio.get_running_loop().call_soon(goes_on.set)
        with pytest.raises(asyncio.CancelledError):
            await figure
    assert [entry["log_level"] for entry in logs] == logged_at
