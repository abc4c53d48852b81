"""How durable work begins, how its steps are tried, and how it is forgotten with its customer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, StepOptions
from sqlalchemy import select
from sqlalchemy.exc import NoResultFound

from optiinfra.kit.retries import DeadlineError, retry_until_deadline
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database

log = structlog.get_logger(__name__)

UNDER_WAY = ("PENDING", "ENQUEUED", "DELAYED")
"""DBOS's states of a workflow that has not ended."""

_NOTING_SECONDS = 2.0
_ENDING_SECONDS = 8.0
"""How long what runs for a customer who has left may take to notice: an agent waits 5 s for telemetry to come."""


def patient(name: str, attempts: int = 8) -> StepOptions:
    """A step that is tried again while it raises, first after half a second, each time twice as late: a minute in all.

    What the outside refuses is an answer that a step returns; what it raises is a defect or a lost store. A row that is
    gone is neither, and does not come back.
    """
    return {
        "name": name,
        "retries_allowed": True,
        "interval_seconds": 0.5,
        "max_attempts": attempts,
        "should_retry": _may_help,
    }


def unfailing(name: str) -> StepOptions:
    """A step that is tried again for as long as a store is away: what it notes is true, and must not be given up."""
    return {
        "name": name,
        "retries_allowed": True,
        "interval_seconds": _NOTING_SECONDS,
        "backoff_rate": 1.0,
        "max_attempts": 1_000_000,
        "should_retry": lambda error: isinstance(error, StoreUnavailable),
    }


async def begin(
    database: Database,
    table: type[models.Analysis | models.Optimization],
    row_id: str,
    workflow: Callable[[str], Coroutine[Any, Any, None]],
    workflow_id: str | None = None,
) -> None:
    """Begin the workflow of a row, under the row's id or another; nothing when it has begun already or the row is gone.

    The row is held meanwhile: who deletes it with its customer finds a workflow to forget, or there will be none.
    """
    held = select(table.customer_id).where(table.id == row_id).with_for_update(read=True, key_share=True)
    async with database.transaction() as session:
        customer_id = await session.scalar(held)
        if customer_id is not None:
            with SetWorkflowID(workflow_id or row_id), SetWorkflowAttributes(_of(customer_id)):
                # Not half: one that is noted as begun and runs nowhere would wait for the next start of this process.
                await asyncio.shield(DBOS.start_workflow_async(workflow, row_id))


async def forget(customer_id: str) -> None:
    """Delete the workflows of a customer whose rows are gone, with all that their steps returned.

    What still runs ends by itself once it misses its rows. What does not in time is cancelled: whatever it is doing, it
    can record nothing from then on.
    """
    try:
        await retry_until_deadline(lambda: _must_have_ended(customer_id), "the customer's workflows", _ENDING_SECONDS)
    except DeadlineError as error:
        log.warning("workflows are cancelled, for their customer has left", customer_id=customer_id, error=str(error))
        await DBOS.cancel_workflows_async(await _workflows(customer_id, list(UNDER_WAY)))
    if owned := await _workflows(customer_id):
        await DBOS.delete_workflows_async(owned)


def _may_help(error: BaseException) -> bool:
    return not isinstance(error, NoResultFound)


def _of(customer_id: str) -> dict[str, str]:
    """What marks a workflow as this customer's; it outlives the rows that the workflow works on."""
    return {"customer_id": customer_id}


async def _workflows(customer_id: str, status: list[str] | None = None) -> list[str]:
    found = await DBOS.list_workflows_async(
        attributes=_of(customer_id), status=status, load_input=False, load_output=False
    )
    return [each.workflow_id for each in found]


async def _must_have_ended(customer_id: str) -> None:
    if running := await _workflows(customer_id, list(UNDER_WAY)):
        raise RuntimeError(f"{', '.join(running)} still running")
