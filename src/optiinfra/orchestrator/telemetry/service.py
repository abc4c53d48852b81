"""Telemetry: storing batches, and reading series."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import bindparam, select

from optiinfra.api.common import now
from optiinfra.api.telemetry import MetricPoint, MetricType, TelemetryBatch
from optiinfra.kit.tasks import log_failure
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.reads import Query

log = structlog.get_logger(__name__)

Samples = Sequence[tuple[str, str, str, str, datetime, float]]
"""Rows as `stores.clickhouse` takes them."""

_CUSTOMER = Query(select(models.Customer.id).where(models.Customer.id == bindparam("customer_id")))
_OPEN_EDGE = math.inf
_AVERAGED = frozenset({"quality_score", "p95_latency_ms", "gpu_utilization"})


async def store(platform: Platform, customer_id: str, batch: TelemetryBatch, key: str | None) -> None:
    """Store a runtime's batch, once per key. The customer comes from the runtime's token, never from the batch."""
    token = f"{customer_id}:{key}" if key else None
    samples, counts = batch.samples, batch.latencies
    # As columns: a tuple for each of thousands of samples takes as long as all else.
    sample_columns: list[Sequence[Any]] = [
        [customer_id] * len(samples),
        [sample.deployment_id for sample in samples],
        [sample.replica_id for sample in samples],
        [sample.metric for sample in samples],
        [sample.timestamp for sample in samples],
        [sample.value for sample in samples],
    ]
    count_columns: list[Sequence[Any]] = [
        [customer_id] * len(counts),
        [count.deployment_id for count in counts],
        [count.replica_id for count in counts],
        [count.timestamp for count in counts],
        [_OPEN_EDGE if count.le is None else count.le for count in counts],
        [count.count for count in counts],
    ]

    async def insert() -> None:
        await platform.telemetry.insert_columns("samples", sample_columns, token)
        await platform.telemetry.insert_columns("latency_counts", count_columns, token)

    await _insert_unless_deleted(platform, customer_id, insert)


async def append(platform: Platform, customer_id: str, samples: Samples, token: str | None = None) -> None:
    """Store a few samples of a customer that the platform itself measured. `token` makes this idempotent."""
    await _insert_unless_deleted(platform, customer_id, lambda: platform.telemetry.insert_samples(samples, token))


async def _insert_unless_deleted(
    platform: Platform, customer_id: str, insert: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Insert a customer's rows, and delete them again if the customer was deleted meanwhile, even when cancelled.

    A deletion removes the customer's row before the telemetry. So it removes what was inserted before, and what is
    inserted later finds no customer.
    """
    inserting = asyncio.ensure_future(insert())
    try:
        await asyncio.shield(inserting)
    except asyncio.CancelledError:
        inserting.add_done_callback(log_failure)
        raise
    finally:
        await asyncio.wait((inserting,))  # its thread continues after a cancellation
        if not await platform.database.read(_CUSTOMER, customer_id=customer_id):
            await platform.telemetry.delete_customer(customer_id)
            log.info("telemetry of deleted customer removed", customer_id=customer_id)


async def store_figure(platform: Platform, customer_id: str, deployment_id: str, metric: str, value: float) -> None:
    """Store one figure of a deployment that the platform itself measured."""
    await append(platform, customer_id, [(customer_id, deployment_id, "", metric, now(), value)])


async def series(
    platform: Platform,
    customer_id: str,
    metric: MetricType,
    start: datetime,
    end: datetime,
    resource_id: str | None,
    limit: int,
) -> list[MetricPoint]:
    """Points of a deployment, oldest first, or of the whole estate: costs as stored, rates summed, others averaged."""
    wanted = "" if resource_id is None and metric == "monthly_cost" else resource_id
    summed = metric not in _AVERAGED
    rows = await platform.telemetry.series(customer_id, metric, start, end, wanted, limit, summed=summed)
    return [
        MetricPoint(
            timestamp=moment,
            value=value,
            score=value if metric == "quality_score" else None,
            resource_id=resource_id or customer_id,
        )
        for moment, value in rows
    ]
