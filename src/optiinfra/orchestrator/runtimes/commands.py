"""Commands to runtimes.

They are issued once per idempotency key, delivered until acknowledged, and cancelled when their caller stops waiting.
"""

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, bindparam, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import NoResultFound

from optiinfra.api.common import Wire, now
from optiinfra.api.customers import Started
from optiinfra.api.runtimes import Command, CommandKind, CommandResult
from optiinfra.domain.command import CommandStatus
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.credentials import agent_tokens
from optiinfra.orchestrator.errors import Unauthenticated
from optiinfra.orchestrator.idempotency import KeyedRequest, remember, replay
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.service import describe_last_contact
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import notify_after_commit
from optiinfra.stores.postgres.reads import Query, Row

_RESULT = Query(
    select(models.Command.status, models.Command.output, models.Command.error).where(
        models.Command.id == bindparam("command_id")
    )
)
_TO_DELIVER = (
    select(models.Command)
    .where(models.Command.customer_id == bindparam("customer_id"), models.Command.status == CommandStatus.PENDING)
    .where(
        or_(
            models.Command.delivered_to.is_distinct_from(bindparam("runtime_id")),
            models.Command.delivered_at < bindparam("overdue"),
        )
    )
)
"""Pending commands that this runtime has not got yet, or got too long ago."""
_ANY_TO_DELIVER = Query(_TO_DELIVER.with_only_columns(models.Command.id).limit(1))


class CommandError(Exception):
    """A runtime could not execute a command, or did not acknowledge it in time; the text says which and why."""


async def execute_command(
    platform: Platform, customer_id: str, key: str, kind: CommandKind, payload: Wire
) -> dict[str, Any]:
    """Issue a command to the customer's runtime and wait for its result.

    `key` is its idempotency key: issuing it again does not execute the command again. A cancelled one is executed, with
    the new payload. Returns the command's output. Raises CommandError when it failed, or when no runtime
    acknowledged it before the deadline. The command is cancelled on timeout and when the caller is cancelled.
    """
    deadline = platform.settings.command_seconds
    try:
        command_id = await _issue(platform, customer_id, key, kind, payload)
        row = await _wait_for_result(platform, command_id, deadline)
    except StoreUnavailable:
        raise  # the command stays pending; a retry finds it by its key
    except asyncio.CancelledError:
        await asyncio.shield(_cancel(platform, customer_id, models.Command.idempotency_key == key))
        raise
    if row is None:
        # Otherwise a runtime might execute it later.
        await _cancel(platform, customer_id, models.Command.idempotency_key == key)
        last_contact = await describe_last_contact(platform, customer_id)
        raise CommandError(f"the runtime did not answer {kind} within {deadline:.0f} s ({last_contact})")
    if row.status == CommandStatus.CANCELLED:
        raise CommandError(f"{kind} was cancelled")
    if row.status == CommandStatus.FAILED:
        raise CommandError(f"the runtime could not {kind}: {row.error}")
    return row.output or {}


async def cancel_commands(platform: Platform, customer_id: str, key_prefix: str) -> None:
    """Cancel the pending commands whose idempotency key starts with this prefix."""
    await _cancel(platform, customer_id, models.Command.idempotency_key.startswith(key_prefix, autoescape=True))


async def _cancel(platform: Platform, customer_id: str, which: ColumnElement[bool]) -> None:
    table = models.Command
    pending = table.customer_id == customer_id, table.status == CommandStatus.PENDING, which
    async with platform.database.transaction() as session:
        await session.execute(update(table).where(*pending).values(status=CommandStatus.CANCELLED, completed_at=now()))


async def deliver_commands(
    platform: Platform, customer_id: str, token_id: str, runtime_id: str, wait_seconds: float
) -> list[Command]:
    """The commands to deliver to this runtime now; waits up to `wait_seconds` for the first.

    Records that the runtime is alive. Raises Unauthenticated when its agent token ends meanwhile.
    """

    async def undelivered() -> list[Command] | None:
        if not await agent_tokens.is_active(platform, token_id):
            raise Unauthenticated("unauthenticated", "this agent token has been deleted or has expired")
        overdue = now() - timedelta(seconds=platform.settings.command_redelivery_seconds)
        which = {"customer_id": customer_id, "runtime_id": runtime_id, "overdue": overdue}
        if not await platform.database.read(_ANY_TO_DELIVER, **which):
            return None
        return await _mark_delivered(platform, which) or None

    caller = models.Runtime.id == runtime_id, models.Runtime.customer_id == customer_id
    async with platform.database.transaction() as session:
        await session.execute(update(models.Runtime).where(*caller).values(last_seen_at=now()))
    return await platform.wake.wait_for(agent_tokens.channel(customer_id), undelivered, wait_seconds) or []


async def acknowledge_command(
    platform: Platform, customer_id: str, command_id: str, result: CommandResult, keyed: KeyedRequest | None = None
) -> bool:
    """Store a runtime's result; the first one counts. False when the customer has no such command."""
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        row = await session.get(models.Command, command_id, with_for_update=True)
        if row is None or row.customer_id != customer_id:
            return False
        if row.status == CommandStatus.PENDING:
            row.status = CommandStatus.DONE if result.ok else CommandStatus.FAILED
            row.output, row.error, row.completed_at = result.output, result.error, now()
            notify_after_commit(session, _result_channel(command_id))
        await remember(session, keyed, Started())
    return True


def _result_channel(command_id: str) -> str:
    return f"command:{command_id}"


async def _issue(platform: Platform, customer_id: str, key: str, kind: CommandKind, payload: Wire) -> str:
    """Store a command unless its key is known; reissue a cancelled one. Returns its id."""
    table = models.Command
    statement = insert(table).values(
        id=new_id("cmd"),
        customer_id=customer_id,
        idempotency_key=key,
        kind=kind,
        payload=payload.model_dump(mode="json"),
        status=CommandStatus.PENDING,
    )
    statement = statement.on_conflict_do_update(
        index_elements=["customer_id", "idempotency_key"],
        set_={
            "payload": statement.excluded.payload,
            "status": CommandStatus.PENDING,
            "completed_at": None,
            "delivered_to": None,
        },
        where=table.status == CommandStatus.CANCELLED,
    )
    async with platform.database.transaction() as session:
        await session.execute(statement)
        same_key = select(table.id).where(table.customer_id == customer_id, table.idempotency_key == key)
        command_id = (await session.scalars(same_key)).one()
        notify_after_commit(session, agent_tokens.channel(customer_id))
    return command_id


async def _wait_for_result(platform: Platform, command_id: str, seconds: float) -> Row | None:
    """The command once it is acknowledged or cancelled; None when it still is pending after `seconds`.

    Raises NoResultFound when it is deleted meanwhile.
    """

    async def completed() -> Row | None:
        rows = await platform.database.read(_RESULT, command_id=command_id)
        if not rows:
            raise NoResultFound(f"command {command_id} was deleted with its customer")
        return rows[0] if rows[0].status != CommandStatus.PENDING else None

    return await platform.wake.wait_for(_result_channel(command_id), completed, seconds)


async def _mark_delivered(platform: Platform, which: dict[str, Any]) -> list[Command]:
    due = _TO_DELIVER.order_by(models.Command.created_at).with_for_update(skip_locked=True)
    async with platform.database.transaction() as session:
        rows = (await session.scalars(due, which)).all()
        for row in rows:
            row.delivered_to, row.delivered_at = which["runtime_id"], now()
    return [
        Command(command_id=row.id, idempotency_key=row.idempotency_key, kind=row.kind, payload=row.payload)
        for row in rows
    ]
