"""Telemetry in ClickHouse: the orchestrator writes, agents read with a user that can do nothing else."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, ParamSpec, TypeVar
from urllib.parse import urlsplit

import clickhouse_connect
from anyio import CapacityLimiter
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from clickhouse_connect.driver.httputil import get_pool_manager
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from optiinfra.stores.errors import translate_errors
from optiinfra.threads import in_thread

P = ParamSpec("P")
T = TypeVar("T")

_ANSWER_SECONDS = 10
_THREADS = CapacityLimiter(8)
"""Threads of their own: queries must not wait for passwords or clouds. The client keeps as many connections."""

_TEMPORARY_CODES = {
    159: "TIMEOUT_EXCEEDED",
    173: "CANNOT_ALLOCATE_MEMORY",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    236: "ABORTED",  # the server is shutting down
    241: "MEMORY_LIMIT_EXCEEDED",
    242: "TABLE_IS_READ_ONLY",
    243: "NOT_ENOUGH_SPACE",
    252: "TOO_MANY_PARTS",
    394: "QUERY_WAS_CANCELLED",
    439: "CANNOT_SCHEDULE_TASK",
    745: "SERVER_OVERLOADED",
}
"""ClickHouse's codes for temporary errors. The HTTP status is not sufficient: an error in a query is a 500 as well."""
_PROXY_ERROR = re.compile(r"HTTP status (5\d\d)")
"""How the client reports an error response that a proxy gave instead of the server."""

TableName = Literal["samples", "latency_counts"]

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_TIMESTAMP = "DateTime64(3, 'UTC')"
"""Milliseconds since 1970."""
_COLUMNS: dict[TableName, dict[str, str]] = {
    "samples": {
        "customer_id": "String",
        "deployment_id": "String",
        "replica_id": "String",
        "metric": "LowCardinality(String)",
        "timestamp": _TIMESTAMP,
        "value": "Float64",
    },
    "latency_counts": {
        "customer_id": "String",
        "deployment_id": "String",
        "replica_id": "String",
        "timestamp": _TIMESTAMP,
        "le": "Float64",
        "count": "UInt64",
    },
}
"""Types of the columns by name."""
_ORDER: dict[TableName, str] = {
    "samples": "customer_id, metric, deployment_id, replica_id, timestamp",
    "latency_counts": "customer_id, deployment_id, timestamp, replica_id, le",
}


class Telemetry:
    """The two telemetry tables of one database. Calls block a worker thread, never the event loop.

    They raise StoreUnavailable when the server does not answer or reports a temporary error.
    """

    def __init__(self, client: Client, pool: PoolManager, database: str) -> None:
        self._client, self._pool, self._database = client, pool, database

    @classmethod
    def connect(cls, url: str, user: str, password: str, database: str) -> "Telemetry":
        """Connect; raises clickhouse_connect's errors when the server does not answer or refuses the user."""
        address = urlsplit(url)
        # Without a pool of its own the client would obey HTTP_PROXY, and leave its connections open.
        pool = get_pool_manager()
        client = clickhouse_connect.get_client(
            pool_mgr=pool,
            host=address.hostname or "127.0.0.1",
            port=address.port or 8123,
            username=user,
            password=password,
            tz_mode="aware",
            autogenerate_session_id=False,  # one client serves concurrent queries
            connect_timeout=5,
            send_receive_timeout=_ANSWER_SECONDS,
        )
        client.database = database  # set after connecting: it may not exist yet
        return cls(client, pool, database)

    async def ping(self) -> None:
        """Raises when the server does not answer a query."""
        await self._query("SELECT 1")

    async def create_schema(self) -> None:
        """Create the database and its tables if they are missing. Users belong to the server's configuration."""
        create = f"CREATE DATABASE IF NOT EXISTS {self._database}"
        await self._call(self._client.command, create, use_database=False)
        for table, columns in _COLUMNS.items():
            listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            statement = f"""CREATE TABLE IF NOT EXISTS {table} ({listed}) ENGINE = MergeTree ORDER BY ({_ORDER[table]})
                SETTINGS non_replicated_deduplication_window = 1000"""
            await self._call(self._client.command, statement)

    async def insert_samples(
        self, rows: Sequence[tuple[str, str, str, str, datetime, float]], token: str | None = None
    ) -> None:
        """Append rows of (customer, deployment, replica or '', metric, timestamp, value).

        `token` is an idempotency key: an insert whose token is among those of the last thousand inserts is dropped.
        """
        await self.insert_columns("samples", list(zip(*rows, strict=True)), token)

    async def insert_columns(
        self, table: TableName, columns: Sequence[Sequence[Any]], token: str | None = None
    ) -> None:
        """Append rows given as columns in the table's order; the driver takes them in half the time.

        `token` is an idempotency key, as for `insert_samples`.
        """
        if not columns or not columns[0]:
            return
        types = list(_COLUMNS[table].values())  # otherwise the driver asks for them
        numbers = [
            _epoch_milliseconds(column) if kind == _TIMESTAMP else column
            for column, kind in zip(columns, types, strict=True)
        ]
        await self._call(
            self._client.insert,
            table,
            numbers,
            list(_COLUMNS[table]),
            column_oriented=True,
            column_type_names=types,
            settings={"insert_deduplication_token": token} if token else {},
        )

    async def latencies(
        self, customer_id: str, deployment_id: str, since: datetime, replica_ids: Sequence[str] | None = None
    ) -> dict[float, float]:
        """Histogram of end-to-end latency since a time: `{upper edge in seconds: requests in that bucket}`."""
        rows = await self._query(
            """SELECT le, sum(count) FROM latency_counts
                WHERE customer_id = %(customer)s AND deployment_id = %(deployment)s
                  AND timestamp >= toDateTime64(%(since)s, 3, 'UTC')
                  AND (%(every)s OR replica_id IN %(replicas)s) GROUP BY le""",
            customer=customer_id,
            deployment=deployment_id,
            since=_milliseconds(since),
            every=replica_ids is None,
            replicas=list(replica_ids or [""]),
        )
        return {math.inf if edge >= 1e300 else edge: float(count) for edge, count in rows}

    async def means(self, customer_id: str, deployment_id: str, since: datetime) -> Mapping[str, float]:
        """Mean of each metric of the deployment since a time; replicas' values are averaged."""
        rows = await self._query(
            """SELECT metric, avg(value) FROM samples
                WHERE customer_id = %(customer)s AND deployment_id = %(deployment)s
                  AND timestamp >= toDateTime64(%(since)s, 3, 'UTC')
                GROUP BY metric""",
            customer=customer_id,
            deployment=deployment_id,
            since=_milliseconds(since),
        )
        return dict(rows)

    async def known_deployments(self, customer_id: str) -> set[str]:
        """Ids of the deployments that have at least one throughput sample."""
        rows = await self._query(
            "SELECT DISTINCT deployment_id FROM samples WHERE customer_id = %(customer)s AND metric = 'throughput'",
            customer=customer_id,
        )
        return {deployment for (deployment,) in rows}

    async def busiest_hour(self, customer_id: str, deployment_id: str, since: datetime) -> float | None:
        """Mean throughput of the deployment's busiest hour since a time, requests a second; None without samples."""
        rows = await self._query(
            """SELECT max(hourly), count() FROM (
                SELECT avg(value) AS hourly FROM samples
                WHERE customer_id = %(customer)s AND metric = 'throughput' AND deployment_id = %(deployment)s
                  AND timestamp >= toDateTime64(%(since)s, 3, 'UTC')
                GROUP BY toStartOfHour(timestamp))""",
            customer=customer_id,
            deployment=deployment_id,
            since=_milliseconds(since),
        )
        busiest, hours = rows[0]
        return float(busiest) if hours else None

    async def series(
        self,
        customer_id: str,
        metric: str,
        start: datetime,
        end: datetime,
        deployment_id: str | None,
        limit: int,
        *,
        summed: bool = False,
    ) -> list[tuple[datetime, float]]:
        """The newest `limit` points (timestamp, value) of a metric, oldest first; both ends of the time are included.

        The values of a deployment's replicas are averaged; without a deployment (None), the values of all deployments
        at a time are averaged or `summed`.
        """
        rows = await self._query(
            """SELECT timestamp, if(%(summed)s, sum(of_deployment), avg(of_deployment)) FROM (
                SELECT timestamp, avg(value) AS of_deployment FROM samples
                WHERE customer_id = %(customer)s AND metric = %(metric)s
                  AND timestamp BETWEEN toDateTime64(%(start)s, 3, 'UTC') AND toDateTime64(%(end)s, 3, 'UTC')
                  AND (%(every)s OR deployment_id = %(deployment)s)
                GROUP BY timestamp, deployment_id)
                GROUP BY timestamp ORDER BY timestamp DESC LIMIT %(limit)s""",
            customer=customer_id,
            metric=metric,
            start=_milliseconds(start),
            end=_milliseconds(end),
            every=deployment_id is None,
            deployment=deployment_id or "",
            limit=limit,
            summed=summed,
        )
        return [(timestamp, value) for timestamp, value in reversed(rows)]

    async def owners(self, table: TableName) -> set[tuple[str, str]]:
        """Distinct (customer, deployment or '') of a table's rows."""
        rows = await self._query(f"SELECT customer_id, deployment_id FROM {table} GROUP BY ALL")  # noqa: S608
        return {(customer, deployment) for customer, deployment in rows}

    async def delete_customer(self, customer_id: str) -> None:
        """Delete every row of a customer; returns when they are gone."""
        for statement in (
            "DELETE FROM samples WHERE customer_id = %(customer)s",
            "DELETE FROM latency_counts WHERE customer_id = %(customer)s",
        ):
            await self._call(self._client.command, statement, parameters={"customer": customer_id})

    async def close(self) -> None:
        """Close the connections. Not in a worker thread: DBOS stops first and shuts the event loop's executor down."""
        self._client.close()
        self._pool.clear()

    async def _query(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        result = await self._call(self._client.query, statement, parameters=parameters)
        return [tuple(row) for row in result.result_rows]

    async def _call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with translate_errors("ClickHouse", outage_reason):
            return await in_thread(_THREADS, operation, *args, **kwargs)


def outage_reason(error: Exception) -> str | None:
    if isinstance(error, OperationalError | HTTPError | OSError):
        return type(error).__name__
    if not isinstance(error, DatabaseError):
        return None
    if error.code is None and (status := _PROXY_ERROR.search(str(error))):
        return f"HTTP {status[1]}"
    return _TEMPORARY_CODES.get(error.code or 0)


def _epoch_milliseconds(moments: Sequence[datetime]) -> list[int]:
    """Milliseconds since 1970, which the driver takes as they are; its own conversion is slower. Many are the same."""
    numbers = {moment: (moment - _EPOCH) // _MILLISECOND for moment in set(moments)}
    return [numbers[moment] for moment in moments]


def _milliseconds(moment: datetime) -> str:
    """A timestamp in ClickHouse's format; the driver would drop the fraction of a second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
