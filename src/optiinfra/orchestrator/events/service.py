"""Events. The customer's row lock serializes their sequence numbers (`seq`), in the transaction of the change."""

from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.events import Event, EventType
from optiinfra.kit.ids import new_id
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database, notify_after_commit
from optiinfra.stores.postgres.reads import Query, columns

_EVENTS = Query(
    select(*columns(models.Event, Event))
    .where(models.Event.customer_id == bindparam("customer_id"), models.Event.seq > bindparam("after"))
    .order_by(models.Event.seq)
    .limit(bindparam("limit"))
)
_LATEST = Query(select(models.Customer.last_event_seq).where(models.Customer.id == bindparam("customer_id")))


def channel(customer_id: str) -> str:
    """The wake-up channel of a customer's events."""
    return f"events:{customer_id}"


async def record(
    session: AsyncSession,
    customer_id: str,
    event_type: EventType,
    source: str,
    payload: dict[str, Any],
    *,
    agent_type: str | None = None,
    optimization_id: str | None = None,
    step: str | None = None,
    status: str | None = None,
    progress: float | None = None,
) -> None:
    """Record an event with the customer's next sequence number; readers wake when the transaction commits."""
    numbered = (
        update(models.Customer)
        .where(models.Customer.id == customer_id)
        .values(last_event_seq=models.Customer.last_event_seq + 1)
        .returning(models.Customer.last_event_seq)
    )
    session.add(
        models.Event(
            customer_id=customer_id,
            seq=(await session.execute(numbered)).scalar_one(),
            id=new_id("evt"),
            event_type=event_type,
            source=source,
            agent_type=agent_type,
            payload=payload,
            optimization_id=optimization_id,
            step=step,
            status=status,
            progress=progress,
        )
    )
    notify_after_commit(session, channel(customer_id))


async def after(database: Database, customer_id: str, seq: int, limit: int) -> list[Event]:
    """Events numbered above `seq`, in order."""
    rows = await database.read(_EVENTS, customer_id=customer_id, after=seq, limit=limit)
    return [Event.model_validate(row, from_attributes=True) for row in rows]


async def latest(database: Database, customer_id: str) -> int:
    """The number of the newest event, 0 before the first."""
    found = await database.read(_LATEST, customer_id=customer_id)
    return int(found[0].last_event_seq) if found else 0
