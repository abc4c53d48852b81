"""Performance test 5: the platform ingests telemetry at half the rate of ClickHouse, and the dashboard stays fast."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from urllib3 import HTTPConnectionPool, connection_from_url

from optiinfra.api import calls
from optiinfra.api.calls import Call
from optiinfra.api.telemetry import Sample, TelemetryBatch
from optiinfra.runtime.outbox import BATCH_ROWS
from testbed.figures import Figures, percentile
from tests.helpers.callers import bearer
from tests.helpers.customer import Customer

pytestmark = pytest.mark.performance

METRICS = ("throughput", "p95_latency_ms", "kv_cache_usage", "gpu_utilization", "requests_waiting")
MOMENTS, INTERVAL = 20_000, timedelta(seconds=30)  # a week of two deployments
SAMPLES = 200_000
REPLICA = "measured"
REPEATED = range(0, SAMPLES // BATCH_ROWS, 4)
DASHBOARD_LOADS = 20

Row = tuple[str, str, str, str, datetime, float]
"""As the table `samples` has it: customer, deployment, replica, metric, timestamp, value."""


@dataclass(frozen=True)
class Batch:
    """Samples as rows and as the body of a request."""

    rows: list[Row]
    body: bytes


def test_telemetry_is_ingested_at_half_the_raw_rate_and_dashboard_stays_fast(
    acme: Customer, environment: dict[str, Any], figures: Figures
) -> None:
    """Every sample is stored once.

    Each batch is also inserted directly, as rows; the two take turns in who is first, so that both see the same load.
    Both are sent by urllib3, which ClickHouse's driver uses.
    Medians are compared, because ClickHouse merges parts at times that neither chooses.
    """
    began = datetime.now(UTC).replace(microsecond=0) - MOMENTS * INTERVAL
    batches = list(_batches(acme, began))
    orchestrator = connection_from_url(environment["urls"]["orchestrator"])
    with _raw_table(environment) as raw, orchestrator:
        path, headers = _runtime(acme)

        def insert(number: int) -> float:
            return _seconds_to_insert(raw, batches[number])

        def ingest(number: int) -> float:
            key = {"Idempotency-Key": f"batch-{number}"}
            return _seconds_to_ingest(orchestrator, path, headers | key, batches[number])

        seconds: dict[Callable[[int], float], list[float]] = {insert: [], ingest: []}
        for number in range(len(batches)):
            for send in (insert, ingest) if number % 2 else (ingest, insert):
                seconds[send].append(send(number))
        for number in REPEATED:  # as a runtime does that got no answer
            ingest(number)
        stored = f"{environment['namespace']}.samples WHERE customer_id = '{acme.id}' AND replica_id = '{REPLICA}'"
        assert _summary(raw, stored) == _summary(raw, "samples") == _expected(batches)
        _store_quality(raw, environment["namespace"])
    inserted, ingested = (percentile(seconds[send], 50) for send in (insert, ingest))
    figures.record("raw insert", BATCH_ROWS / inserted, "samples/s")
    figures.record("ingestion", BATCH_ROWS / ingested, "samples/s")
    figures.record("ingestion to raw insert", inserted / ingested, at_least=0.5)
    loads = _dashboard_loads(acme)
    for name, taken in loads.items():
        figures.record(f"{name}, p95", 1000 * percentile(taken, 95), "ms", at_most=500)
    figures.plot(inserted=seconds[insert], ingested=seconds[ingest], dashboard=loads)
    assert figures.missed() == []


def _batches(customer: Customer, began: datetime) -> Iterator[Batch]:
    deployments = sorted(deployment.deployment_id for deployment in customer.infrastructure().vllm_deployments)
    rows = [
        (customer.id, deployment, REPLICA, metric, began + moment * INTERVAL, float((moment * 7) % 1000) / 8)
        for moment in range(MOMENTS)
        for deployment in deployments
        for metric in METRICS
    ]
    assert len(rows) == SAMPLES
    for start in range(0, SAMPLES, BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        samples = [
            Sample(deployment_id=deployment, replica_id=replica, metric=metric, timestamp=timestamp, value=value)
            for _customer, deployment, replica, metric, timestamp, value in part
        ]
        yield Batch(part, TelemetryBatch(samples=samples).model_dump_json().encode())  # as a runtime sends it


@contextmanager
def _raw_table(environment: dict[str, Any]) -> Iterator[Client]:
    """A client whose database has an empty table like the platform's."""
    url = httpx.URL(environment["urls"]["clickhouse"])
    credentials = environment["credentials"]
    client = clickhouse_connect.get_client(
        host=url.host,
        port=url.port,
        username=credentials["clickhouse_user"],
        password=credentials["clickhouse_password"],
        tz_mode="aware",
    )
    database = f"raw_{uuid.uuid4().hex}"
    client.command(f"CREATE DATABASE {database}")
    try:
        client.database = database
        client.command(f"CREATE TABLE samples AS {environment['namespace']}.samples")
        yield client
    finally:
        client.command(f"DROP DATABASE {database} SYNC")
        client.close()


def _runtime(customer: Customer) -> tuple[str, dict[str, str]]:
    """The telemetry path and the credential of one more runtime of the customer."""
    token = customer.send(calls.agent_install_command(customer.id)).agent_token
    connect = {"customer_id": customer.id, "agent_token": token, "hostname": "measured", "version": "1"}
    runtime_id = customer.post("/agent-runtime/connect", connect)["runtime_id"]
    return f"/agent-runtime/{runtime_id}/telemetry", {"Content-Type": "application/json", **bearer(token)}


def _seconds_to_insert(raw: Client, batch: Batch) -> float:
    began = time.perf_counter()
    raw.insert("samples", batch.rows, ["customer_id", "deployment_id", "replica_id", "metric", "timestamp", "value"])
    return time.perf_counter() - began


def _seconds_to_ingest(http: HTTPConnectionPool, path: str, headers: dict[str, str], batch: Batch) -> float:
    began = time.perf_counter()
    answer = http.request("POST", path, body=batch.body, headers=headers)
    seconds = time.perf_counter() - began
    assert answer.status == 202, f"telemetry was answered with {answer.status}: {answer.data!r}"
    return seconds


def _store_quality(raw: Client, database: str) -> None:
    """As many quality scores as samples of one metric, stored as the platform does: a runtime may not send them."""
    copied = "customer_id, deployment_id, replica_id, 'quality_score' AS metric, timestamp, value"
    raw.command(f"INSERT INTO {database}.samples SELECT {copied} FROM samples WHERE metric = 'kv_cache_usage'")  # noqa: S608


def _summary(raw: Client, stored: str) -> list[tuple[Any, ...]]:
    """Deployment, metric, number, number of different moments, first and last moment, and sum, of what is stored."""
    statement = f"""SELECT deployment_id, metric, count(), uniqExact(timestamp), min(timestamp), max(timestamp),
        sum(value) FROM {stored} GROUP BY deployment_id, metric ORDER BY deployment_id, metric"""  # noqa: S608
    return [tuple(row) for row in raw.query(statement).result_rows]


def _expected(batches: list[Batch]) -> list[tuple[Any, ...]]:
    """The same of what was sent; the values are eighths, so that sums are exact in any order."""
    sent: dict[tuple[str, str], list[Row]] = {}
    for batch in batches:
        for row in batch.rows:
            sent.setdefault((row[1], row[3]), []).append(row)
    return [
        (*key, len(rows), MOMENTS, rows[0][4], rows[-1][4], sum(row[5] for row in rows))
        for key, rows in sorted(sent.items())
    ]


def _dashboard_loads(customer: Customer) -> dict[str, list[float]]:
    """Seconds of each query of the dashboard, whose series show the newest of what was sent."""
    queries: dict[str, Call[Any]] = {
        "infrastructure": calls.infrastructure(customer.id),
        "recommendations": calls.recommendations(customer.id),
        "optimizations": calls.optimizations(customer.id),
        "agents": calls.agents(),
        "monthly cost": calls.metrics(customer.id, "monthly_cost"),
        "latency": calls.metrics(customer.id, "p95_latency_ms"),
        "quality": calls.metrics(customer.id, "quality_score"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in queries}
    for _ in range(DASHBOARD_LOADS):
        for name, query in queries.items():
            started = time.perf_counter()
            answer = customer.http.request(query.method, query.path, params=dict(query.query))
            seconds[name].append(time.perf_counter() - started)
            assert answer.status_code == 200, f"{query} answered {answer.status_code}: {answer.text}"
    return seconds
