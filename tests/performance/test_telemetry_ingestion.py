"""Performance test 5: the platform ingests telemetry at half the rate of ClickHouse, and the dashboard stays fast."""

import gc
import time
import uuid
from collections.abc import Iterator
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
from tests.helpers.customer import Customer
from tests.helpers.runtime import PlayedRuntime, connected_runtime, customer_without_fleet, deployment

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
    environment: dict[str, Any], figures: Figures
) -> None:
    """Every sample is stored once.

    Each batch is also inserted directly, as rows; the two take turns in who is first, so that both see the same load.
    Both are sent by urllib3, which ClickHouse's driver uses. The customer has no fleet: simulating one takes a part of
    the machine, which varies.
    Medians are compared, because ClickHouse merges parts at times that neither chooses.
    """
    with customer_without_fleet(environment) as customer, connected_runtime(customer) as runtime:
        ids = runtime.report(*(deployment(name, [f"i-{name}"], "g6.xlarge") for name in ("chat", "batch")))
        batches = list(_batches(customer, sorted(ids.values())))
        with _without_collections():
            seconds = _seconds_in_turns(environment, customer, runtime, batches)
        inserted, ingested = (percentile(seconds[how], 50) for how in ("insert", "ingest"))
        figures.record("raw insert", BATCH_ROWS / inserted, "samples/s")
        figures.record("ingestion", BATCH_ROWS / ingested, "samples/s")
        figures.record("ingestion to raw insert", inserted / ingested, at_least=0.5)
        loads = _dashboard_loads(customer)
        for name, taken in loads.items():
            figures.record(f"{name}, p95", 1000 * percentile(taken, 95), "ms", at_most=500)
        figures.plot(inserted=seconds["insert"], ingested=seconds["ingest"], dashboard=loads)
    assert figures.missed() == []


def _seconds_in_turns(
    environment: dict[str, Any], customer: Customer, runtime: PlayedRuntime, batches: list[Batch]
) -> dict[str, list[float]]:
    """Seconds of each batch, by `insert` and `ingest`; then the stored rows are compared with what was sent."""
    headers = {"Content-Type": "application/json", "Authorization": runtime.http.headers["Authorization"]}
    orchestrator = connection_from_url(environment["urls"]["orchestrator"])
    with _raw_table(environment) as raw, orchestrator:

        def insert(number: int) -> float:
            return _seconds_to_insert(raw, batches[number])

        def ingest(number: int) -> float:
            key = {"Idempotency-Key": f"batch-{number}"}
            return _seconds_to_ingest(orchestrator, f"{runtime.path}/telemetry", headers | key, batches[number])

        seconds: dict[str, list[float]] = {"insert": [], "ingest": []}
        for number in range(len(batches)):
            for send in (insert, ingest) if number % 2 else (ingest, insert):
                seconds[send.__name__].append(send(number))
        for number in REPEATED:  # as a runtime does that got no answer
            ingest(number)
        stored = f"{environment['namespace']}.samples WHERE customer_id = '{customer.id}' AND replica_id = '{REPLICA}'"
        assert _summary(raw, stored) == _summary(raw, "samples") == _expected(batches)
        _store_quality(raw, environment["namespace"])
    return seconds


def _batches(customer: Customer, deployments: list[str]) -> Iterator[Batch]:
    began = datetime.now(UTC).replace(microsecond=0) - MOMENTS * INTERVAL
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
        yield Batch(part, TelemetryBatch.of(samples).model_dump_json().encode())  # as a runtime sends it


@contextmanager
def _without_collections() -> Iterator[None]:
    """Without garbage collections in this process: a full one takes longer than an insert, and visits all batches."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
