"""ClickHouse as the platform uses it: clickhouse-connect over HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.contract.engine import Engine, running


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running("clickhouse") as started:
        yield started


def connect(engine: Engine, user: str, password: str) -> Client:
    # With a pool of its own it closes its connections, for which the server would wait when it stops.
    return clickhouse_connect.get_client(
        host="127.0.0.1", port=engine.port, username=user, password=password, dedicated_pool=True
    )


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    made = connect(engine, "optiinfra", engine.secret("clickhouse_password"))
    made.command("CREATE DATABASE IF NOT EXISTS optiinfra")
    made.command(
        "CREATE TABLE IF NOT EXISTS optiinfra.samples (at DateTime64(3), name String, value Float64)"
        " ENGINE = MergeTree ORDER BY (name, at)"
    )
    made.command("TRUNCATE TABLE optiinfra.samples")
    yield made
    made.close()


def insert(client: Client, count: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [(start + timedelta(seconds=second), "p95", float(second)) for second in range(count)]
    client.insert("optiinfra.samples", rows, column_names=["at", "name", "value"])


def test_rows_keep_their_types(client: Client) -> None:
    insert(client, 100)
    row = client.query("SELECT count(), max(value), max(at) FROM optiinfra.samples").result_rows[0]
    assert row[:2] == (100, 99.0)
    assert row[2].replace(tzinfo=UTC) == datetime(2026, 1, 1, 0, 1, 39, tzinfo=UTC)


def test_async_insert_that_was_waited_for_is_readable(client: Client) -> None:
    client.command(
        "INSERT INTO optiinfra.samples VALUES (now64(), 'ttft', 1.5)",
        settings={"async_insert": 1, "wait_for_async_insert": 1},
    )
    assert client.command("SELECT count() FROM optiinfra.samples WHERE name = 'ttft'") == 1


def test_reader_account_cannot_write(engine: Engine, client: Client) -> None:
    insert(client, 3)
    reader = connect(engine, "optiinfra_reader", engine.secret("clickhouse_reader_password"))
    assert reader.command("SELECT count() FROM optiinfra.samples") == 3
    with pytest.raises(DatabaseError, match="Not enough privileges"):
        reader.command("INSERT INTO optiinfra.samples VALUES (now64(), 'x', 1)")
    reader.close()


def test_ping_is_answered_without_credential(engine: Engine) -> None:
    answer = httpx.get(f"http://127.0.0.1:{engine.port}/ping", trust_env=False)
    assert (answer.status_code, answer.text) == (200, "Ok.\n")
    assert httpx.head(answer.url, trust_env=False).status_code == 200
    assert httpx.post(answer.url, content="SELECT 1", trust_env=False).status_code == 401


@pytest.mark.parametrize("user", ["optiinfra", "nobody"])
def test_wrong_password_or_user_is_refused(engine: Engine, user: str) -> None:
    with pytest.raises(DatabaseError, match="Authentication failed"):
        connect(engine, user, "wrong")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic ZGVmYXVsdDo="}, {"X-ClickHouse-User": "default"}, {"Origin": "http://a.example"}],
)
def test_request_without_an_account_of_ours_is_refused(engine: Engine, headers: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{engine.port}"
    for query in ("", "?user=default"):
        answer = httpx.post(url + query, content=b"SELECT 1", headers=headers)
        assert (answer.status_code, answer.text[:21]) == (401, "Authentication failed")


def test_account_cannot_read_files_or_addresses(client: Client) -> None:
    for source in ("file('/etc/passwd', 'LineAsString')", "url('http://127.0.0.1:9/', 'LineAsString')"):
        with pytest.raises(DatabaseError, match="Not enough privileges"):
            client.command(f"SELECT * FROM {source}")  # noqa: S608


def test_rows_survive_a_kill(engine: Engine, client: Client) -> None:
    insert(client, 1000)
    engine.kill()
    engine.start()
    again = connect(engine, "optiinfra", engine.secret("clickhouse_password"))
    assert again.command("SELECT count() FROM optiinfra.samples") == 1000
    again.close()
