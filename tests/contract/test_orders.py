"""Orders that are given, taken back and given anew: what a runtime gets, and what whoever ordered hears."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.api.runtimes import Command, CommandResult, Measure
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes import service
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]


async def wait_for(_channel: str, fetch: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    """Polls, without notifications."""
    ends = time.monotonic() + seconds
    while (found := await fetch()) is None and time.monotonic() < ends:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return found


@pytest.fixture
def platform(database: Database) -> Platform:
    settings = SimpleNamespace(command_seconds=20.0, command_redelivery_seconds=30.0)
    return cast(
        "Platform", SimpleNamespace(database=database, settings=settings, wake=SimpleNamespace(wait_for=wait_for))
    )


def ordered(platform: Platform, deployment: str = "chat") -> "asyncio.Task[dict[str, Any]]":
    payload = Measure(deployment=deployment)
    return asyncio.create_task(service.order(platform, CUSTOMER, "opt_1:one", "measure", payload))


async def delivered(platform: Platform, runtime: str = "runtime_1", seconds: float = 10.0) -> list[Command]:
    return await service.pending(platform, CUSTOMER, runtime, seconds)


async def answered(platform: Platform, command: Command, **output: Any) -> None:
    assert await service.answer(platform, CUSTOMER, command.command_id, CommandResult(ok=True, output=output))


async def test_an_order_is_carried_out_once_however_often_it_is_given(platform: Platform) -> None:
    first, second = ordered(platform), ordered(platform)
    (command,) = await delivered(platform)
    await answered(platform, command, replica_id="rep-1")
    assert await first == await second == await ordered(platform) == {"replica_id": "rep-1"}
    assert await delivered(platform, "runtime_2", 0.0) == []


async def test_what_nobody_waits_for_any_more_is_taken_back(platform: Platform) -> None:
    waiting = ordered(platform)
    await delivered(platform)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await delivered(platform, "runtime_2", 0.0) == []


async def test_what_was_taken_back_is_given_anew(platform: Platform) -> None:
    waiting = ordered(platform)
    (before,) = await delivered(platform)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    again = ordered(platform, "search")
    commands = await delivered(platform)
    assert commands == [before.model_copy(update={"payload": {"deployment": "search"}})]
    await answered(platform, commands[0], replica_id="rep-1")
    assert await again == {"replica_id": "rep-1"}


async def test_what_failed_stays_as_it_is(platform: Platform) -> None:
    waiting = ordered(platform)
    (command,) = await delivered(platform)
    await service.answer(platform, CUSTOMER, command.command_id, CommandResult(ok=False, error="no such engine"))
    for order in (waiting, ordered(platform)):
        with pytest.raises(service.CommandError, match="could not measure: no such engine"):
            await order
