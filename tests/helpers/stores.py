"""Direct access to the stores of an environment: to seed defects in them, and to search them."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import redis
from qdrant_client import QdrantClient

from optiinfra.api.telemetry import Sample


class Stores:
    """Connections to the four stores; close them by `close`."""

    def __init__(self, environment: dict[str, Any]) -> None:
        urls, credentials = environment["urls"], environment["credentials"]
        self.namespace, self.collection = environment["namespace"], environment["collection"]
        self._postgresql = psycopg.connect(urls["postgresql"].replace("+psycopg", ""), autocommit=True)
        self._clickhouse = httpx.Client(
            base_url=urls["clickhouse"],
            auth=(credentials["clickhouse_user"], credentials["clickhouse_password"]),
            params={"database": self.namespace},
            timeout=30,
        )
        self.redis = redis.Redis.from_url(urls["redis"], decode_responses=True)
        self.qdrant = QdrantClient(url=urls["qdrant"], api_key=credentials["qdrant_api_key"], check_compatibility=False)

    def close(self) -> None:
        """Close the connections."""
        self._postgresql.close()
        self._clickhouse.close()
        self.redis.close()
        self.qdrant.close()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement in PostgreSQL; returns its rows, if it has any."""
        done = self._postgresql.execute(statement.encode(), values or None)
        return done.fetchall() if done.description else []

    def sql_named(self, statement: str, **values: Any) -> None:
        """Run one statement with named values (`%(name)s`) in PostgreSQL."""
        self._postgresql.execute(statement.encode(), values)

    def clickhouse(self, statement: str) -> list[str]:
        """Run one statement in ClickHouse; returns the lines of the response."""
        answer = self._clickhouse.post("/", content=statement)
        assert answer.is_success, f"{statement} answered {answer.status_code}: {answer.text}"
        return answer.text.splitlines()

    def insert_samples(self, customer_id: str, samples: Sequence[Sample]) -> None:
        """Store samples in ClickHouse as the platform stores figures of its own, which runtimes may not send."""
        rows = (
            {
                "customer_id": customer_id,
                "deployment_id": sample.deployment_id,
                "replica_id": sample.replica_id,
                "metric": sample.metric,
                "timestamp": f"{sample.timestamp.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3],
                "value": sample.value,
            }
            for sample in samples
        )
        self.clickhouse("INSERT INTO samples FORMAT JSONEachRow " + "\n".join(map(json.dumps, rows)))

    def requests_counted(
        self, customer_id: str, replica_ids: Collection[str], first: datetime, last: datetime
    ) -> list[int]:
        """How many requests of these replicas each measurement between two times counted, the earliest first."""
        start, end = (f"fromUnixTimestamp64Milli({int(at.timestamp() * 1000)})" for at in (first, last))
        replicas = ", ".join(f"'{one}'" for one in replica_ids)
        counted = self.clickhouse(
            f"SELECT sum(count) FROM latency_counts WHERE customer_id = '{customer_id}' AND replica_id IN ({replicas})"  # noqa: S608
            f" AND timestamp BETWEEN {start} AND {end} GROUP BY timestamp ORDER BY timestamp"
        )
        return [int(line) for line in counted]

    def tables(self) -> list[str]:
        """Every table of the platform and of DBOS in PostgreSQL, with its schema."""
        rows = self.sql("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'dbos')")
        return [f"{schema}.{table}" for schema, table in rows]

    def count_mentions(self, ids: Collection[str]) -> dict[str, int]:
        """How many rows, points and keys contain any of the ids anywhere, by store and table; without zeros."""
        pattern = "|".join(ids)  # ids have no characters that are special in a regular expression
        found: dict[str, int] = {}
        for table in self.tables():
            counted = self.sql(f"SELECT count(*) FROM {table} AS t WHERE t::text ~ %s", pattern)  # noqa: S608
            found[f"postgresql {table}"] = counted[0][0]
        for table in self.clickhouse(f"SELECT name FROM system.tables WHERE database = '{self.namespace}'"):  # noqa: S608
            counted_lines = self.clickhouse(f"SELECT count() FROM {table} WHERE match(toString(tuple(*)), '{pattern}')")  # noqa: S608
            found[f"clickhouse {table}"] = int(counted_lines[0])
        found["qdrant"] = sum(
            any(one in str(point) for one in ids)
            for collection in self.qdrant.get_collections().collections
            if collection.name.startswith(self.collection)  # others come and go with other tests
            for point in self._points(collection.name)
        )
        found["redis"] = sum(any(one in content for one in ids) for content in self._redis_contents())
        return {where: count for where, count in found.items() if count}

    def _points(self, collection: str) -> list[Any]:
        points, rest = self.qdrant.scroll(collection, limit=10_000)
        assert rest is None, "there are more points than were read"
        return list(points)

    def _redis_contents(self) -> Iterator[str]:
        """Every key with its value."""
        read: dict[str, Callable[[str], object]] = {
            "string": self.redis.get,
            "hash": self.redis.hgetall,
            "set": self.redis.smembers,
            "list": lambda key: self.redis.lrange(key, 0, -1),
            "zset": lambda key: self.redis.zrange(key, 0, -1),
            "none": lambda _: "",  # it has expired meanwhile
        }
        for key in self.redis.scan_iter("*"):
            yield f"{key} {read[str(self.redis.type(key))](key)}"
