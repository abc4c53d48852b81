"""Durable work: how it is started, how its steps are retried, and how it is deleted with its customer."""

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

IN_PROGRESS = ("PENDING", "ENQUEUED", "DELAYED")
"""DBOS's states of a workflow that has not ended."""

_STORE_RETRY_SECONDS = 2.0
_ENDING_SECONDS = 8.0
"""How long a deleted customer's workflows may take to end after the deletion: an agent waits 5 s for telemetry."""


def retry_on_errors(name: str, attempts: int = 8) -> StepOptions:
    """A retry policy with exponential backoff from half a second: a minute in all for 8 attempts.

    A step returns expected failures (refused by cloud, runtime or agent). It raises only defects and store outages.
    A missing row is not retried: its customer was deleted.
    """
    return {
        "name": name,
        "retries_allowed": True,
        "interval_seconds": 0.5,
        "max_attempts": attempts,
        "should_retry": _may_succeed_later,
    }


def retry_while_unavailable(name: str) -> StepOptions:
    """A retry policy at a fixed interval while a store is unavailable, for a step whose record must not be lost."""
    return {
        "name": name,
        "retries_allowed": True,
        "interval_seconds": _STORE_RETRY_SECONDS,
        "backoff_rate": 1.0,
        "max_attempts": 1_000_000,
        "should_retry": lambda error: isinstance(error, StoreUnavailable),
    }


async def start_workflow(
    database: Database,
    table: type[models.Analysis | models.Optimization],
    row_id: str,
    workflow: Callable[[str], Coroutine[Any, Any, None]],
    workflow_id: str | None = None,
) -> None:
    """Start the workflow of a row, under the row's id or another; no-op if it runs already or the row does not exist.

    The row is locked meanwhile, so that a concurrent customer deletion either finds the workflow or prevents it.
    """
    locked = select(table.customer_id).where(table.id == row_id).with_for_update(read=True, key_share=True)
    async with database.transaction() as session:
        customer_id = await session.scalar(locked)
        if customer_id is not None:
            with SetWorkflowID(workflow_id or row_id), SetWorkflowAttributes(_of(customer_id)):
                # A cancellation here would leave a workflow that is recorded but not executed.
                await asyncio.shield(DBOS.start_workflow_async(workflow, row_id))


async def delete_workflows(customer_id: str, *, ending_seconds: float = _ENDING_SECONDS) -> None:
    """Delete the workflows of a deleted customer, with everything that their steps returned.

    Running workflows end when their rows are missing. Those that do not within the deadline are cancelled, and
    then can no longer record anything.
    """
    try:
        await retry_until_deadline(lambda: _require_ended(customer_id), "the customer's workflows", ending_seconds)
    except DeadlineError as error:
        log.warning("workflows of deleted customer did not end, cancelling", customer_id=customer_id, error=str(error))
        await DBOS.cancel_workflows_async(await _workflows(customer_id, list(IN_PROGRESS)))
    if owned := await _workflows(customer_id):
        await DBOS.delete_workflows_async(owned)


def _may_succeed_later(error: BaseException) -> bool:
    return not isinstance(error, NoResultFound)


def _of(customer_id: str) -> dict[str, str]:
    """Attributes that assign a workflow to the customer. They outlive the rows that the workflow works on."""
    return {"customer_id": customer_id}


async def _workflows(customer_id: str, status: list[str] | None = None) -> list[str]:
    found = await DBOS.list_workflows_async(
        attributes=_of(customer_id), status=status, load_input=False, load_output=False
    )
    return [each.workflow_id for each in found]


async def _require_ended(customer_id: str) -> None:
    if running := await _workflows(customer_id, list(IN_PROGRESS)):
        raise RuntimeError(f"{', '.join(running)} still running")
