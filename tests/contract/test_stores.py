"""The platform's own stores against the embedded engines that stand for the databases."""

import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import anyio
import psutil
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from clickhouse_connect.driver.exceptions import DatabaseError
from httpx import HTTPStatusError
from qdrant_client.http.exceptions import UnexpectedResponse
from sqlalchemy import delete, select, text
from sqlalchemy.exc import DataError, DBAPIError

from optiinfra.domain.outcomes import Change, features
from optiinfra.kit.ids import new_id
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.stores import qdrant as qdrant_store
from optiinfra.stores import redis
from optiinfra.stores.clickhouse import Telemetry
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database, notify_after_commit
from optiinfra.stores.qdrant import OutcomeMemory
from tests.contract.conftest import no_notification
from tests.contract.engine import Engine, running

pytestmark = pytest.mark.anyio

BEGAN = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.fixture(scope="module")
def clickhouse() -> Iterator[Engine]:
    with running("clickhouse") as engine:
        yield engine


@pytest.fixture(scope="module")
def qdrant() -> Iterator[Engine]:
    with running("qdrant") as engine:
        yield engine


@pytest.fixture(scope="module")
def valkey() -> Iterator[Engine]:
    with running("redis") as engine:
        yield engine


@pytest.fixture
async def telemetry(clickhouse: Engine) -> AsyncIterator[Telemetry]:
    opened = Telemetry.connect(
        clickhouse.environment.urls()["clickhouse"], "optiinfra", clickhouse.secret("clickhouse_password"), "optiinfra"
    )
    await opened.create_schema()
    yield opened
    await opened.delete_customer("cust_1")
    await opened.close()


@pytest.fixture
async def memory(qdrant: Engine) -> AsyncIterator[OutcomeMemory]:
    opened = OutcomeMemory(qdrant.environment.urls()["qdrant"], qdrant.secret("qdrant_api_key"), "outcomes")
    await opened.create_schema()
    yield opened
    await opened.close()


async def test_migrate_creates_the_schema_of_the_models(database: Database) -> None:
    await database.migrate()  # again: nothing to do
    async with database.transaction() as session:
        connection = await session.connection()
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), models.Base.metadata)
        )
    assert difference == []


async def test_transaction_that_fails_stores_nothing_and_sends_no_notification(postgresql: Engine) -> None:
    notified: list[str] = []

    async def notify(channel: str) -> None:
        notified.append(channel)

    database = Database(postgresql.environment.urls()["postgresql"], notify)
    await database.migrate()

    async def fail_on_the_way() -> None:
        async with database.transaction() as session:
            session.add(models.Customer(id="cust_lost", company_name="x", plan="pro", preferences={}))
            notify_after_commit(session, "lost")
            await session.flush()
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        await fail_on_the_way()
    async with database.transaction() as session:
        await session.execute(delete(models.Customer))  # the engine is this module's own
        session.add(models.Customer(id="cust_kept", company_name="x", plan="pro", preferences={}))
        notify_after_commit(session, "kept")
    async with database.transaction() as session:
        assert list(await session.scalars(select(models.Customer.id))) == ["cust_kept"]
    assert notified == ["kept"]
    await database.close()


async def test_transaction_that_the_server_ends_is_an_outage(postgresql: Engine, database: Database) -> None:
    other = Database(postgresql.environment.urls()["postgresql"], no_notification)

    async def ended(process: int) -> None:
        async with other.transaction() as session:
            assert (
                await session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :p"), {"p": process}) == 0
            )

    async def idle() -> None:
        async with database.transaction() as session:
            await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            process = await session.scalar(text("SELECT pg_backend_pid()"))
            await retry_until_deadline(lambda: ended(process or 0), "the server to end the session", 10.0)
            await session.execute(text("SELECT 1"))

    with pytest.raises((StoreUnavailable, DBAPIError)) as failed:
        await idle()
    assert str(failed.value) == "PostgreSQL does not answer (IdleInTransactionSessionTimeout)"
    await other.close()


async def test_statement_that_fails_is_no_outage_and_hides_its_values(database: Database) -> None:
    async def divide() -> None:
        statement = text("SELECT 1 / CAST(:zero AS int), CAST(:said AS text)")
        async with database.transaction() as session:
            await session.execute(statement, {"zero": 0, "said": "whispered"})

    with pytest.raises(DataError) as failed:
        await divide()
    assert "whispered" not in str(failed.value)


async def insert_latencies(
    telemetry: Telemetry, rows: list[tuple[str, str, str, datetime, float, int]], token: str | None = None
) -> None:
    """Append rows of (customer, deployment, replica, timestamp, bucket's upper edge in seconds, count)."""
    await telemetry.insert_columns("latency_counts", list(zip(*rows, strict=True)), token)


async def test_latencies_are_summed_by_bucket_since_a_millisecond(telemetry: Telemetry) -> None:
    earlier = BEGAN - timedelta(milliseconds=1)
    await insert_latencies(
        telemetry,
        [
            ("cust_1", "dep_1", "rep_1", earlier, 1.0, 1000),
            ("cust_1", "dep_1", "rep_1", BEGAN, 1.0, 3),
            ("cust_1", "dep_1", "rep_2", BEGAN, 1.0, 4),
            ("cust_1", "dep_1", "rep_2", BEGAN, math.inf, 5),
            ("cust_1", "dep_2", "rep_3", BEGAN, 1.0, 6),
            ("cust_2", "dep_1", "rep_1", BEGAN, 1.0, 7),
        ],
    )
    assert await telemetry.latencies("cust_1", "dep_1", BEGAN) == {1.0: 7.0, math.inf: 5.0}
    assert await telemetry.latencies("cust_1", "dep_1", BEGAN, ["rep_1"]) == {1.0: 3.0}
    assert await telemetry.latencies("cust_1", "dep_1", BEGAN, []) == {}
    await telemetry.delete_customer("cust_2")


async def test_insert_repeated_under_its_token_is_stored_once(telemetry: Telemetry) -> None:
    rows = [("cust_1", "dep_9", "rep_1", BEGAN, 1.0, 3)]
    first, second = new_id("token"), new_id("token")
    for token in (first, first, second):
        await insert_latencies(telemetry, rows, token)
    assert await telemetry.latencies("cust_1", "dep_9", BEGAN) == {1.0: 6.0}


async def test_owners_are_distinct(telemetry: Telemetry) -> None:
    for deployment in ("dep_1", "dep_1", "dep_2", ""):
        await telemetry.insert_samples([("cust_own", deployment, "rep_1", "throughput", BEGAN, 1.0)])
    await insert_latencies(telemetry, [("cust_own", "dep_3", "rep_1", BEGAN, 1.0, 3)])
    mine = [("cust_own", deployment) for deployment in ("", "dep_1", "dep_2")]
    assert sorted(owner for owner in await telemetry.owners("samples") if owner[0] == "cust_own") == mine
    assert ("cust_own", "dep_3") in await telemetry.owners("latency_counts")
    await telemetry.delete_customer("cust_own")
    for table in ("samples", "latency_counts"):
        assert "cust_own" not in {customer for customer, _ in await telemetry.owners(table)}


async def test_series_are_oldest_first_in_utc(telemetry: Telemetry) -> None:
    later = BEGAN + timedelta(hours=1)
    await telemetry.insert_samples(
        [("cust_1", "dep_1", "", "throughput", later, 2.0), ("cust_1", "dep_1", "", "throughput", BEGAN, 1.0)]
    )
    assert await telemetry.series("cust_1", "throughput", BEGAN, later, "dep_1", 10) == [
        (BEGAN, 1.0),
        (later, 2.0),
    ]
    assert await telemetry.series("cust_1", "throughput", later, later, None, 10) == [(later, 2.0)]


async def test_series_of_all_deployments_counts_each_point_as_one_towards_the_limit(telemetry: Telemetry) -> None:
    await telemetry.insert_samples(
        [
            ("cust_two", deployment, replica, "throughput", BEGAN + timedelta(hours=hour), value + hour)
            for hour in range(3)
            for deployment, replica, value in (("dep_1", "rep_1", 1.0), ("dep_1", "rep_2", 3.0), ("dep_2", "", 4.0))
        ]
    )
    later, latest = BEGAN + timedelta(hours=1), BEGAN + timedelta(hours=2)
    arguments = "cust_two", "throughput", BEGAN, latest, None, 2
    assert await telemetry.series(*arguments, summed=True) == [(later, 8.0), (latest, 10.0)]
    assert await telemetry.series(*arguments) == [(later, 4.0), (latest, 5.0)]


@pytest.mark.usefixtures("telemetry")
async def test_telemetry_ignores_a_proxy_of_the_environment_and_closes_its_connections(
    clickhouse: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    opened = Telemetry.connect(
        clickhouse.environment.urls()["clickhouse"], "optiinfra", clickhouse.secret("clickhouse_password"), "optiinfra"
    )
    await opened.ping()
    before = _connections_to(clickhouse.port)
    await opened.close()
    assert _connections_to(clickhouse.port) == before - 1


def _connections_to(port: int) -> int:
    """How many connections of this process to the port are open."""
    opened = [each for each in psutil.Process().net_connections(kind="tcp") if each.raddr and each.raddr.port == port]
    return sum(1 for each in opened if each.status == psutil.CONN_ESTABLISHED)


async def test_reader_account_cannot_write_telemetry(clickhouse: Engine, telemetry: Telemetry) -> None:
    await telemetry.insert_samples([("cust_1", "dep_1", "", "throughput", BEGAN, 4.0)])
    reader = Telemetry.connect(
        clickhouse.environment.urls()["clickhouse"],
        "optiinfra_reader",
        clickhouse.secret("clickhouse_reader_password"),
        "optiinfra",
    )
    assert (await reader.means("cust_1", "dep_1", BEGAN))["throughput"] == 4.0
    with pytest.raises(DatabaseError, match="Not enough privileges"):
        await reader.insert_samples([("cust_1", "dep_1", "", "throughput", BEGAN, 5.0)])
    await reader.close()


async def test_clickhouse_without_memory_is_an_outage(telemetry: Telemetry) -> None:
    with pytest.raises(StoreUnavailable, match=r"^ClickHouse does not answer \(MEMORY_LIMIT_EXCEEDED\)$"):
        await telemetry._query(
            "SELECT number FROM numbers(10000000) ORDER BY rand() SETTINGS max_memory_usage = 1000000"
        )


async def test_wrong_qdrant_key_is_no_outage(qdrant: Engine, memory: OutcomeMemory) -> None:
    stranger = OutcomeMemory(qdrant.environment.urls()["qdrant"], "wrong", "outcomes")
    with pytest.raises(UnexpectedResponse, match="401"):
        await stranger.points()
    with pytest.raises(HTTPStatusError, match="401"):
        await stranger.ping()
    await stranger.close()


async def test_similar_outcomes_are_found_within_the_customer(memory: OutcomeMemory) -> None:
    change = Change("spot_migration", 27.4, 70e9, 8, 2, 2.0)
    for customer, optimization in (("cust_1", "opt_1"), ("cust_2", "opt_2")):
        await memory.store(customer, optimization, change.type, features(change), {"savings": 10.0}, {"savings": 12.0})
    (found,) = await memory.similar("cust_1", change.type, features(change))
    assert (found.optimization_id, found.modelled, found.measured) == ("opt_1", {"savings": 10.0}, {"savings": 12.0})
    assert found.similarity == pytest.approx(1.0, abs=1e-4)
    await memory.delete_customer("cust_1")
    assert await memory.similar("cust_1", change.type, features(change)) == []
    assert len(await memory.similar("cust_2", change.type, features(change))) == 1
    await memory.delete_customer("cust_2")


async def test_outcome_stored_again_is_replaced(memory: OutcomeMemory) -> None:
    vector = features(Change("spot_migration", 27.4, 70e9, 8, 2, 2.0))
    for measured in (11.0, 12.0):
        await memory.store("cust_1", "opt_1", "spot_migration", vector, {"savings": 10.0}, {"savings": measured})
    (found,) = await memory.similar("cust_1", "spot_migration", vector)
    assert found.measured == {"savings": 12.0}
    await memory.delete_customer("cust_1")


async def test_points_are_listed_over_all_pages(memory: OutcomeMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_store, "_PAGE", 2)
    vector = features(Change("spot_migration", 27.4, 70e9, 8, 2, 2.0))
    stored = {f"opt_{number}": f"cust_{number % 2}" for number in range(5)}
    for optimization, customer in stored.items():
        await memory.store(customer, optimization, "spot_migration", vector, {}, {})
    assert await memory.points() == {
        qdrant_store.point_id(optimization): (customer, optimization) for optimization, customer in stored.items()
    }
    for customer in ("cust_0", "cust_1"):
        await memory.delete_customer(customer)
    assert await memory.points() == {}


async def test_wake_up_notify_wakes_waiting_reader_at_once(valkey: Engine) -> None:
    client = redis.connect(valkey.environment.urls()["redis"])
    wake, found, looks = redis.WakeUp(client, "optiinfra"), None, 0

    async def fetch() -> str | None:
        nonlocal looks
        looks += 1
        return found

    async def looked_after_subscribing() -> None:
        assert looks == 2, f"the reader has looked {looks} times"

    async with anyio.create_task_group() as group:

        async def publish() -> None:
            nonlocal found
            await retry_until_deadline(looked_after_subscribing, "the reader to wait", 5.0, interval=0.01)
            found = "news"
            await wake.notify("channel")

        group.start_soon(publish)
        with anyio.fail_after(1.5):  # sooner than a reader looks by itself
            assert await wake.wait_for("channel", fetch, 30.0) == "news"
    assert await wake.wait_for("other", fetch, 0.0) == "news"
    await redis.close(client)


async def test_presence_expires(valkey: Engine) -> None:
    client = redis.connect(valkey.environment.urls()["redis"])
    presence, brief = redis.Presence(client, "optiinfra", 60.0), redis.Presence(client, "optiinfra", 0.05)
    await presence.refresh("agent_1")
    await presence.refresh("agent_2")
    await brief.refresh("agent_3")
    await presence.remove("agent_2")

    async def only_the_first() -> None:
        assert await presence.alive(["agent_1", "agent_2", "agent_3"]) == {"agent_1"}

    await retry_until_deadline(only_the_first, "presence to expire", 5.0, interval=0.02)
    assert await presence.alive([]) == set()
    assert await presence.agent_ids() == {"agent_1"}
    await redis.close(client)


async def test_presence_lasts_for_fractions_of_a_second(valkey: Engine) -> None:
    client = redis.connect(valkey.environment.urls()["redis"])
    await redis.Presence(client, "fractions", 60.9).refresh("agent_1")
    assert 60_000 < await client.pttl("fractions:agent:agent_1") <= 60_900
    await redis.close(client)
