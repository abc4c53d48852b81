"""Runtimes on customers' sides: tokens, connections, and orders that are delivered until they are answered."""

import asyncio
import json
import shlex
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert

from optiinfra.api.common import Wire, now
from optiinfra.api.customers import InstallCommand
from optiinfra.api.runtimes import Command, CommandKind, CommandResult
from optiinfra.domain.command import CommandStatus
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import notify_after_commit

log = structlog.get_logger(__name__)

_TAKEN_BACK = "taken back"
"""The error of an order that nobody waits for any more."""


class CommandError(Exception):
    """A runtime could not carry out an order, or did not answer in time; the text says which and why."""


async def issue_token(platform: Platform, customer_id: str) -> InstallCommand:
    """A new token for the customer's runtime; only its hash is kept."""
    token, token_id = new_secret("agtok"), new_id("token")
    async with platform.database.transaction() as session:
        session.add(models.AgentToken(id=token_id, customer_id=customer_id, token_hash=secret_hash(token)))
    enrolment = {
        "customer_id": customer_id,
        "agent_token": token,
        "gateway_url": "http://YOUR-INFERENCE-GATEWAY",
        "golden_prompts": "/PATH/TO/YOUR/GOLDEN-PROMPTS.yaml",
    }
    command = (
        f"(umask 077; mkdir -p enrolments; echo {shlex.quote(json.dumps(enrolment))} > enrolments/{customer_id}.json); "
        f"OPTIINFRA_ORCHESTRATOR_URL={platform.settings.orchestrator_url} "
        "OPTIINFRA_RUNTIME_ENROLMENTS=enrolments OPTIINFRA_STATE_DIR=. python -m optiinfra.runtime"
    )
    return InstallCommand(install_command=command, agent_token=token, token_id=token_id)


async def authenticate(platform: Platform, token: str) -> Principal | None:
    """The runtime that a token belongs to, None for an unknown or revoked one."""
    valid = models.AgentToken.token_hash == secret_hash(token), models.AgentToken.revoked_at.is_(None)
    async with platform.database.transaction() as session:
        row = await session.scalar(select(models.AgentToken).where(*valid))
    return None if row is None else Principal("runtime", row.id, row.customer_id)


async def connect(platform: Platform, customer_id: str, hostname: str, version: str) -> str:
    """Note a runtime that connects; orders that its predecessor left unanswered will be delivered to it."""
    runtime_id = new_id("runtime")
    async with platform.database.transaction() as session:
        session.add(models.Runtime(id=runtime_id, customer_id=customer_id, hostname=hostname, version=version))
    log.info("runtime connected", customer_id=customer_id, runtime_id=runtime_id, hostname=hostname)
    return runtime_id


async def pending(platform: Platform, customer_id: str, runtime_id: str, wait_seconds: float) -> list[Command]:
    """Orders to deliver to this runtime now; waits for one at most so many seconds."""

    async def undelivered() -> list[Command] | None:
        return await _take(platform, customer_id, runtime_id) or None

    found = await platform.wake.wait_for(f"commands:{customer_id}", undelivered, wait_seconds)
    return found or []


async def order(platform: Platform, customer_id: str, key: str, kind: CommandKind, payload: Wire) -> dict[str, Any]:
    """Have the customer's runtime carry out an order once, however often it is given under this key.

    One that was taken back is given anew, as it is now. Returns its output; raises CommandError when it failed or
    nobody answered before the deadline.
    """
    table = models.Command
    statement = insert(table).values(
        id=new_id("cmd"),
        customer_id=customer_id,
        idempotency_key=key,
        kind=kind,
        payload=payload.model_dump(mode="json"),
        status=CommandStatus.PENDING,
    )
    given = statement.on_conflict_do_update(
        index_elements=["customer_id", "idempotency_key"],
        set_={
            "payload": statement.excluded.payload,
            "status": CommandStatus.PENDING,
            "error": None,
            "completed_at": None,
            "delivered_to": None,
        },
        where=table.error == _TAKEN_BACK,
    )

    async def answered() -> models.Command | None:
        async with platform.database.transaction() as session:
            row = await session.get_one(table, command_id)
        return row if row.status != CommandStatus.PENDING else None

    deadline = platform.settings.command_seconds
    try:
        async with platform.database.transaction() as session:
            await session.execute(given)
            mine = select(table.id).where(table.customer_id == customer_id, table.idempotency_key == key)
            command_id = (await session.scalars(mine)).one()
            notify_after_commit(session, f"commands:{customer_id}")
        row = await platform.wake.wait_for(f"command:{command_id}", answered, deadline)
    except StoreUnavailable:
        raise  # whoever ordered it tries again, and finds the order as it is
    except asyncio.CancelledError:
        await asyncio.shield(withdraw(platform, customer_id, key))
        raise
    if row is None:
        # Nobody waits for it any more, so nobody may carry it out later.
        await withdraw(platform, customer_id, key)
        raise CommandError(
            f"the runtime did not answer {kind} within {deadline:.0f} s ({await _seen(platform, customer_id)})"
        )
    if row.status == CommandStatus.FAILED:
        raise CommandError(f"the runtime could not {kind}: {row.error}")
    return row.output or {}


async def withdraw(platform: Platform, customer_id: str, key_prefix: str) -> None:
    """Take back the orders under these keys that nobody has answered."""
    table = models.Command
    unanswered = (
        table.customer_id == customer_id,
        table.idempotency_key.startswith(key_prefix, autoescape=True),
        table.status == CommandStatus.PENDING,
    )
    async with platform.database.transaction() as session:
        await session.execute(
            update(table).where(*unanswered).values(status=CommandStatus.FAILED, error=_TAKEN_BACK, completed_at=now())
        )


async def answer(platform: Platform, customer_id: str, command_id: str, result: CommandResult) -> bool:
    """Take a runtime's answer; the first one counts. False when the customer has no such order."""
    async with platform.database.transaction() as session:
        row = await session.get(models.Command, command_id, with_for_update=True)
        if row is None or row.customer_id != customer_id:
            return False
        if row.status == CommandStatus.PENDING:
            row.status = CommandStatus.DONE if result.ok else CommandStatus.FAILED
            row.output, row.error, row.completed_at = result.output, result.error, now()
            notify_after_commit(session, f"command:{command_id}")
    return True


async def _take(platform: Platform, customer_id: str, runtime_id: str) -> list[Command]:
    table = models.Command
    long_ago = now() - timedelta(seconds=platform.settings.command_redelivery_seconds)
    due = (
        select(table)
        .where(table.customer_id == customer_id, table.status == CommandStatus.PENDING)
        .where(or_(table.delivered_to.is_distinct_from(runtime_id), table.delivered_at < long_ago))
        .order_by(table.created_at)
        .with_for_update(skip_locked=True)
    )
    async with platform.database.transaction() as session:
        rows = (await session.scalars(due)).all()
        for row in rows:
            row.delivered_to, row.delivered_at = runtime_id, now()
        mine = models.Runtime.id == runtime_id, models.Runtime.customer_id == customer_id
        await session.execute(update(models.Runtime).where(*mine).values(last_seen_at=now()))
    return [
        Command(command_id=row.id, idempotency_key=row.idempotency_key, kind=row.kind, payload=row.payload)
        for row in rows
    ]


async def _seen(platform: Platform, customer_id: str) -> str:
    mine = select(models.Runtime).where(models.Runtime.customer_id == customer_id)
    async with platform.database.transaction() as session:
        latest = await session.scalar(mine.order_by(models.Runtime.last_seen_at.desc()).limit(1))
    return f"last heard of at {latest.last_seen_at:%H:%M:%S} UTC" if latest else "no runtime has ever connected"
