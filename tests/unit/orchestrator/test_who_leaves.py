"""A customer's deletion and what is under way meanwhile: whoever is later, deletes."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.exc import NoResultFound

from optiinfra.api.common import now
from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from optiinfra.kit import tasks
from optiinfra.orchestrator import durable
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.telemetry import service as telemetry
from optiinfra.stores.errors import StoreUnavailable
from tests.unit.logs import logged

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Stores:
    """A platform whose one customer leaves at the `leaves`-th insert into the telemetry."""

    def __init__(self, leaves: int | None, breaks: bool = False) -> None:
        self.there, self.rows = True, 0
        self._inserts, self._leaves, self._breaks = 0, leaves, breaks
        self.platform = cast("Platform", SimpleNamespace(telemetry=self, database=self))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async def scalar(_query: Any) -> str | None:
            return "cust_1" if self.there else None

        yield SimpleNamespace(scalar=scalar)

    async def insert_samples(self, rows: list[Any], _token: str | None = None) -> None:
        self._inserts += 1
        if self._inserts == self._leaves:  # the deletion is over before the rows are in
            self.there, self.rows = False, 0
        self.rows += len(rows)
        if self._breaks and self._inserts == 2:
            raise RuntimeError("the connection broke")

    insert_latencies = insert_samples

    async def delete_customer(self, customer_id: str) -> None:
        assert customer_id == "cust_1"
        self.rows = 0


SAMPLE = Sample(deployment_id="dep_1", metric="throughput", timestamp=now(), value=1.0)
BATCH = TelemetryBatch(
    samples=[SAMPLE],
    latencies=[LatencyCount(deployment_id="dep_1", replica_id="rep_1", timestamp=now(), le=None, count=1)],
)


async def test_a_batch_of_a_customer_who_stays_is_kept() -> None:
    stores = Stores(leaves=None)
    await telemetry.store(stores.platform, "cust_1", BATCH, "key")
    assert stores.rows == 2


@pytest.mark.parametrize("leaves", [1, 2], ids=["before its samples are in", "before its latencies are in"])
async def test_a_batch_under_way_leaves_nothing_of_who_leaves(leaves: int) -> None:
    stores = Stores(leaves)
    await telemetry.store(stores.platform, "cust_1", BATCH, "key")
    assert stores.rows == 0


async def test_a_batch_that_breaks_half_way_leaves_nothing_either() -> None:
    stores = Stores(leaves=1, breaks=True)
    with pytest.raises(RuntimeError, match="broke"):
        await telemetry.store(stores.platform, "cust_1", BATCH, "key")
    assert stores.rows == 0


async def test_a_batch_that_is_given_up_leaves_nothing_either() -> None:
    stores, begun, goes_on, ended = Stores(leaves=None), asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def insert(rows: list[Any], _token: str | None = None) -> None:
        def in_a_thread() -> None:
            loop.call_soon_threadsafe(begun.set)
            goes_on.wait(5)
            stores.rows += len(rows)
            ended.set()

        await asyncio.to_thread(in_a_thread)

    stores.insert_samples = insert  # type: ignore[method-assign]
    figure = asyncio.create_task(telemetry.store_figure(stores.platform, "cust_1", "dep_1", "quality_score", 0.9))
    await asyncio.wait_for(begun.wait(), 5)
    stores.there = False
    figure.cancel()
    loop.call_later(0.05, goes_on.set)
    with pytest.raises(asyncio.CancelledError):
        await figure
    assert await asyncio.to_thread(ended.wait, 5)
    assert stores.rows == 0


async def test_a_figure_under_way_leaves_nothing_of_who_leaves() -> None:
    stores = Stores(leaves=1)
    await telemetry.store_figure(stores.platform, "cust_1", "dep_1", "quality_score", 0.9)
    assert stores.rows == 0


class Workflows:
    """DBOS with workflows of cust_1, by id; those that run end at the `ends`-th look at them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: int | None = None, **states: str) -> None:
        self.states, self.done, self._looks, self._ends = states, list[str](), 0, ends
        monkeypatch.setattr(durable, "DBOS", self)
        monkeypatch.setattr(durable, "_ENDING_SECONDS", 0.3)

    async def list_workflows_async(self, *, attributes: Any, status: list[str] | None, **_more: Any) -> list[Any]:
        assert attributes == {"customer_id": "cust_1"}
        self._looks += status is not None
        if self._looks == self._ends:
            self.states = dict.fromkeys(self.states, "SUCCESS")
        wanted = [name for name, state in self.states.items() if status is None or state in status]
        return [SimpleNamespace(workflow_id=name) for name in wanted]

    async def cancel_workflows_async(self, ids: list[str]) -> None:
        self.done.append(f"cancelled {', '.join(ids)}")

    async def delete_workflows_async(self, ids: list[str]) -> None:
        self.done.append(f"deleted {', '.join(ids)}")


async def test_workflows_that_ended_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, opt_1="SUCCESS", anal_1="ERROR")
    await durable.delete_workflows("cust_1")
    assert workflows.done == ["deleted opt_1, anal_1"]


async def test_one_that_runs_is_let_end(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, ends=2, anal_1="PENDING")
    await durable.delete_workflows("cust_1")
    assert workflows.done == ["deleted anal_1"]


async def test_one_that_does_not_end_is_cancelled_before_it_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch, opt_1="SUCCESS", anal_1="PENDING")
    await durable.delete_workflows("cust_1")
    assert workflows.done == ["cancelled anal_1", "deleted opt_1, anal_1"]


async def test_where_there_is_no_workflow_none_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    workflows = Workflows(monkeypatch)
    await durable.delete_workflows("cust_1")
    assert workflows.done == []


def test_a_row_that_is_gone_is_not_waited_for() -> None:
    should_retry = durable.retry_on_errors("draft")["should_retry"]
    assert should_retry is not None
    assert not should_retry(NoResultFound())
    assert should_retry(ConnectionError())


@pytest.mark.parametrize(
    ("failure", "logged_at"), [(RuntimeError("a defect"), ["error"]), (StoreUnavailable("ClickHouse is away"), [])]
)
async def test_a_defect_is_logged_though_its_caller_is_gone(failure: Exception, logged_at: list[str]) -> None:
    stores, begun, goes_on = Stores(leaves=None), asyncio.Event(), asyncio.Event()

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
