"""Commands to runtimes: issued, delivered, acknowledged and cancelled."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import NoResultFound

from optiinfra.api.common import now
from optiinfra.api.runtimes import Command, CommandResult, Measure
from optiinfra.orchestrator.errors import Unauthenticated
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes import commands, service
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer", "agent_token")]

TOKEN = "token_1"


async def wait_for(_channel: str, fetch: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    """Polls, without notifications."""
    ends = time.monotonic() + seconds
    while (found := await fetch()) is None and time.monotonic() < ends:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return found


@pytest.fixture
async def agent_token(customer: None, database: Database) -> None:
    """The token of the customer's runtimes."""
    async with database.transaction() as session:
        expires_at = now() + timedelta(hours=1)
        session.add(models.AgentToken(id=TOKEN, customer_id=CUSTOMER, token_hash="x", expires_at=expires_at))


@pytest.fixture
def platform(database: Database) -> Platform:
    return platform_of(database, command_seconds=20.0)


def platform_of(database: Database, command_seconds: float) -> Platform:
    settings = SimpleNamespace(command_seconds=command_seconds, command_redelivery_seconds=30.0)
    wake = SimpleNamespace(wait_for=wait_for)
    return cast("Platform", SimpleNamespace(database=database, settings=settings, wake=wake))


def execute(platform: Platform, deployment: str = "chat") -> "asyncio.Task[dict[str, Any]]":
    """Issue a command, always under the same key, and wait for its result in the background."""
    payload = Measure(deployment=deployment)
    return asyncio.create_task(commands.execute_command(platform, CUSTOMER, "opt_1:one", "measure", payload))


async def deliver(platform: Platform, runtime: str = "runtime_1", seconds: float = 10.0) -> list[Command]:
    return await commands.deliver_commands(platform, CUSTOMER, TOKEN, runtime, seconds)


async def acknowledge(platform: Platform, command: Command, **output: Any) -> None:
    result = CommandResult(ok=True, output=output)
    assert await commands.acknowledge_command(platform, CUSTOMER, command.command_id, result)


async def cancel_waiting(waiting: "asyncio.Task[dict[str, Any]]") -> None:
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_execute_command_issued_repeatedly_is_executed_once(platform: Platform) -> None:
    first, second = execute(platform), execute(platform)
    (command,) = await deliver(platform)
    await acknowledge(platform, command, replica_id="rep-1")
    assert await first == await second == await execute(platform) == {"replica_id": "rep-1"}
    assert await deliver(platform, "runtime_2", 0.0) == []


async def test_execute_command_whose_caller_is_cancelled_cancels_the_command(platform: Platform) -> None:
    waiting = execute(platform)
    await deliver(platform)
    await cancel_waiting(waiting)
    assert await deliver(platform, "runtime_2", 0.0) == []


async def test_execute_command_issues_a_cancelled_command_anew_with_its_new_payload(platform: Platform) -> None:
    waiting = execute(platform)
    (before,) = await deliver(platform)
    await cancel_waiting(waiting)

    again = execute(platform, "search")
    delivered = await deliver(platform)
    assert delivered == [before.model_copy(update={"payload": {"deployment": "search"}})]
    await acknowledge(platform, delivered[0], replica_id="rep-1")
    assert await again == {"replica_id": "rep-1"}


async def test_execute_command_that_failed_is_not_executed_again(platform: Platform) -> None:
    waiting = execute(platform)
    (command,) = await deliver(platform)
    failure = CommandResult(ok=False, error="no such engine")
    await commands.acknowledge_command(platform, CUSTOMER, command.command_id, failure)
    for execution in (waiting, execute(platform)):
        with pytest.raises(commands.CommandError, match="could not measure: no such engine"):
            await execution


async def test_execute_command_without_a_runtime_fails_after_its_deadline(database: Database) -> None:
    platform = platform_of(database, command_seconds=0.05)
    with pytest.raises(commands.CommandError, match=r"did not answer measure within .*no runtime has ever connected"):
        await execute(platform)
    assert await deliver(platform, "runtime_1", 0.0) == [], "it is cancelled"


async def test_execute_command_without_an_answer_tells_when_the_runtime_was_last_heard_of(database: Database) -> None:
    platform = platform_of(database, command_seconds=0.05)
    runtime = (await service.connect(platform, CUSTOMER, TOKEN, "host", "1")).runtime_id
    async with database.transaction() as session:
        await session.execute(update(models.Runtime).values(last_seen_at=now() - timedelta(days=1, hours=1)))
    before = now()
    await deliver(platform, runtime, 0.0)
    with pytest.raises(commands.CommandError, match="last heard of at") as raised:
        await execute(platform)
    heard = str(raised.value).rpartition("at ")[2].removesuffix(" UTC)")
    assert f"{before:%H:%M:%S}" <= heard <= f"{now():%H:%M:%S}"


async def test_execute_command_whose_customer_is_deleted_finds_nothing(platform: Platform) -> None:
    waiting = execute(platform)
    await deliver(platform)
    async with platform.database.transaction() as session:
        await session.execute(delete(models.Command))
    await asyncio.wait((waiting,))
    assert isinstance(waiting.exception(), NoResultFound), waiting


async def test_cancel_commands_ends_the_wait_for_them(platform: Platform) -> None:
    waiting = execute(platform)
    await deliver(platform)
    await commands.cancel_commands(platform, CUSTOMER, "opt_1:")
    with pytest.raises(commands.CommandError, match="measure was cancelled"):
        await waiting


async def test_acknowledge_command_of_another_customer_is_refused(platform: Platform) -> None:
    waiting = execute(platform)
    (command,) = await deliver(platform)
    result = CommandResult(ok=True)
    assert not await commands.acknowledge_command(platform, "cust_other", command.command_id, result)
    await cancel_waiting(waiting)


@pytest.mark.parametrize("change", [{"revoked_at": now()}, {"expires_at": now()}])
async def test_waiting_delivery_is_refused_when_the_agent_token_ends(
    database: Database, platform: Platform, change: dict[str, Any]
) -> None:
    delivery = asyncio.create_task(deliver(platform))
    await asyncio.sleep(0)
    async with database.transaction() as session:
        await session.execute(update(models.AgentToken).values(**change))
    with pytest.raises(Unauthenticated, match="deleted or has expired"):
        await delivery
