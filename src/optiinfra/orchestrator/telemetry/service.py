"""Telemetry: storing batches, and reading series."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from psycopg.errors import ForeignKeyViolation
from sqlalchemy import BindParameter, String, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from optiinfra.api.common import now
from optiinfra.api.telemetry import RUNTIME_METRICS, MetricPoint, MetricType
from optiinfra.kit.tasks import log_failure
from optiinfra.orchestrator.errors import Invalid, NotFound
from optiinfra.orchestrator.idempotency import KEYS_KEPT
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.telemetry.parsing import Columns
from optiinfra.stores.clickhouse import TableName
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.postgres.reads import Query

log = structlog.get_logger(__name__)

Samples = Sequence[tuple[str, str, str, str, datetime, float]]
"""Rows as `stores.clickhouse` takes them."""

_SHOWN_NAMES, _SHOWN_CHARACTERS = 20, 450
"""How many unknown names an error repeats, twice, and how many characters of them."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """The idempotency key of a batch, and the digest of the body that it was sent with."""

    key: str
    digest: str


def _known() -> Query:
    key, deployment = models.TelemetryKey, models.Deployment
    customer: BindParameter[str] = bindparam("customer_id")
    stored = select(key.digest).where(key.customer_id == customer, key.key == bindparam("key", type_=String))
    asked = deployment.id == func.any(bindparam("deployment_ids", type_=ARRAY(String)))
    present = select(func.array_agg(deployment.id)).where(
        deployment.customer_id == customer, deployment.gone_at.is_(None), asked
    )
    return Query(select(stored.scalar_subquery().label("digest"), present.scalar_subquery().label("deployment_ids")))


_KNOWN = _known()
"""The digest stored under a key, and which of the asked deployments the customer has."""
_REMEMBER = Query(
    insert(models.TelemetryKey)
    .values({name: bindparam(name) for name in ("customer_id", "key", "digest")})
    .on_conflict_do_nothing()
    .returning(models.TelemetryKey.key)
)
_CUSTOMER = Query(select(models.Customer.id).where(models.Customer.id == bindparam("customer_id")))
_AVERAGED = frozenset({"quality_score", "p95_latency_ms", "gpu_utilization"})


async def store(platform: Platform, customer_id: str, batch: Columns, key: BatchKey | None) -> bool:
    """Store a runtime's batch, once per key; whether it had been stored before.

    The customer comes from the runtime's token, never from the batch.

    Raises Invalid if another body was stored under the key, or for a metric that runtimes do not send; NotFound for
    deployments that the customer does not have, or no longer.
    """
    _require_runtime_metrics(batch)
    if await _is_stored(platform, customer_id, batch, key):
        return True
    await _insert(platform, customer_id, batch, key)
    # Only now: a batch whose key is known is complete. Until then, ClickHouse recognizes the key.
    if key is not None:
        await _remember(platform, customer_id, key)
    return False


async def forget_old_batches(database: Database) -> None:
    """Delete idempotency keys of batches that are too old to be sent again."""
    table = models.TelemetryKey
    async with database.transaction() as session:
        await session.execute(delete(table).where(table.created_at < now() - KEYS_KEPT))


def _require_runtime_metrics(batch: Columns) -> None:
    refused = set(batch.samples.metrics) - RUNTIME_METRICS
    if refused:
        shown = ", ".join(_shown(refused))
        sent = ", ".join(sorted(RUNTIME_METRICS))
        raise Invalid(f"samples: a runtime may not send {shown}; costs and quality are the platform's own; send {sent}")


def _shown(names: Iterable[str]) -> list[str]:
    """The first of what a request named, as far as there is room. The platform's own ids are short."""
    shown: list[str] = []
    room = _SHOWN_CHARACTERS
    for name in sorted(names)[:_SHOWN_NAMES]:
        if shown and len(name) > room:
            break
        shown.append(name[:room])
        room -= len(name)
    return shown


async def _is_stored(platform: Platform, customer_id: str, batch: Columns, key: BatchKey | None) -> bool:
    """Whether the batch was stored under its key before. Raises Invalid and NotFound as `store`."""
    asked = batch.deployment_ids
    (known,) = await platform.database.read(
        _KNOWN, customer_id=customer_id, key=None if key is None else key.key, deployment_ids=list(asked)
    )
    if key is not None and known.digest is not None:
        _require_same_body(known.digest, key)
        return True
    if unknown := sorted(asked.difference(known.deployment_ids or ())):
        shown = _shown(unknown)
        raise NotFound(f"deployment: {', '.join(shown)}", deployment_ids=shown)
    return False


async def _remember(platform: Platform, customer_id: str, key: BatchKey) -> None:
    """Store the key with its digest. Raises Invalid if another batch was faster."""
    # A key that a crash of PostgreSQL loses is still ClickHouse's.
    values = {"customer_id": customer_id, "key": key.key, "digest": key.digest}
    try:
        stored = await platform.database.insert(_REMEMBER, **values)
    except ForeignKeyViolation:
        raise NotFound("customer") from None
    if not stored:
        (known,) = await platform.database.read(_KNOWN, customer_id=customer_id, key=key.key, deployment_ids=[])
        _require_same_body(known.digest, key)


def _require_same_body(digest: str | None, key: BatchKey) -> None:
    if digest != key.digest:
        raise Invalid(
            "header.Idempotency-Key: it was used for another batch: send each batch under a key of its own",
            "idempotency_key_reused",
        )


async def _insert(platform: Platform, customer_id: str, batch: Columns, key: BatchKey | None) -> None:
    token = f"{customer_id}:{key.key}" if key else None
    tables: dict[TableName, Sequence[Sequence[Any]]] = {"samples": batch.samples, "latency_counts": batch.latencies}

    async def insert() -> None:
        for table, columns in tables.items():
            await platform.telemetry.insert_columns(table, [[customer_id] * len(columns[0]), *columns], token)

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
