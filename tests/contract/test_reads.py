"""Reads of PostgreSQL outside of transactions."""

import asyncio

import psycopg
import pytest
from sqlalchemy import bindparam, func, literal, select, text

from optiinfra.api.customers import Customer
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models, reads
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.postgres.reads import Query, columns, json_list
from tests.contract.conftest import CUSTOMER, no_notification
from tests.contract.engine import running

pytestmark = pytest.mark.anyio

BACKEND = Query(select(func.pg_backend_pid().label("pid")))
SLEEP = Query(select(func.pg_sleep(bindparam("seconds"))))
BY_ID = Query(
    select(*columns(models.Customer, Customer)).where(
        models.Customer.id == bindparam("customer_id"), models.Customer.plan == "pro"
    )
)


async def end_connections(database: Database) -> None:
    """Have the server end every connection but this one."""
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    async with database.transaction() as session:
        await session.execute(text(f"{others} AND pid <> pg_backend_pid()"))


async def backends(database: Database, count: int) -> set[int]:
    """The server processes that answer so many reads at once."""
    return {found[0].pid for found in await asyncio.gather(*(database.read(BACKEND) for _ in range(count)))}


@pytest.mark.usefixtures("customer")
async def test_read_returns_rows_by_column_name(database: Database) -> None:
    (row,) = await database.read(BY_ID, customer_id=CUSTOMER)
    assert (row.id, row.company_name, row.plan, row.preferences) == (CUSTOMER, "x", "pro", {})
    assert row.created_at.utcoffset() is not None
    assert await database.read(BY_ID, customer_id="cust_2") == []


@pytest.mark.usefixtures("customer")
async def test_read_sees_what_is_committed_and_nothing_else(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE customers SET company_name = 'y'"))
        await session.flush()
        assert [row.company_name for row in await database.read(BY_ID, customer_id=CUSTOMER)] == ["x"]
    assert [row.company_name for row in await database.read(BY_ID, customer_id=CUSTOMER)] == ["y"]


async def test_json_list_holds_the_rows_in_order(database: Database) -> None:
    numbers = func.generate_series(1, bindparam("last")).table_valued("number", name="n").render_derived()
    downwards = select(numbers.c.number, literal("x").label("text")).order_by(numbers.c.number.desc())
    query = Query(select(json_list(downwards).label("found")))
    (row,) = await database.read(query, last=3)
    assert row.found == [{"number": number, "text": "x"} for number in (3, 2, 1)]
    assert (await database.read(query, last=0))[0].found == []


@pytest.mark.usefixtures("customer")
async def test_read_cannot_change_anything(database: Database) -> None:
    locking = Query(select(models.Customer.id).with_for_update())
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await database.read(locking)


async def test_reads_share_a_bounded_number_of_connections(database: Database) -> None:
    first = await backends(database, 4 * reads.CONNECTIONS)
    assert len(first) <= reads.CONNECTIONS
    assert await backends(database, 4 * reads.CONNECTIONS) == first


async def test_read_after_the_server_has_ended_idle_connections_is_answered(database: Database) -> None:
    ended = await backends(database, 8)
    await end_connections(database)
    reading = asyncio.create_task(backends(database, 8))
    await asyncio.wait((reading,))
    assert reading.exception() is None
    assert not reading.result() & ended


async def test_cancelled_read_leaves_a_usable_connection(database: Database) -> None:
    (before,) = await backends(database, 1)
    reading = asyncio.create_task(database.read(SLEEP, seconds=60))
    await asyncio.wait((reading,), timeout=0.1)
    reading.cancel()
    await asyncio.wait((reading,), timeout=10)
    assert reading.cancelled()
    assert await backends(database, 1) == {before}


async def test_read_while_the_server_is_down_raises_store_unavailable_and_then_is_answered() -> None:
    with running("postgresql", "down") as server:
        database = Database(server.environment.urls()["postgresql"], no_notification)
        await backends(database, 4)
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"PostgreSQL does not answer \(OperationalError\)"):
                await database.read(BACKEND)
        server.start()
        assert len(await backends(database, 4)) == 4
        await database.close()
