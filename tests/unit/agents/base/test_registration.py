"""An agent's registration: heartbeats, registering again, deregistering."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from optiinfra.agents.base.registration import Registration
from optiinfra.api.agents import Register
from optiinfra.kit.task_requests import TaskSigner
from tests.unit.agents.registry import ENROLMENT_SECRET, FakeRegistry

pytestmark = pytest.mark.anyio


@pytest.fixture
def registry() -> FakeRegistry:
    found = FakeRegistry()
    found.heartbeat_seconds = 0.01
    return found


@pytest.fixture
async def registration(registry: FakeRegistry) -> AsyncIterator[Registration]:
    body = Register(agent_type="cost", version="1", capabilities=["analyze"], hostname="h", base_url="http://a")
    found = Registration(registry.client(), ENROLMENT_SECRET, body, lambda: 0)
    await found.register(1.0)
    yield found
    await found.close()


async def test_heartbeat_of_a_forgotten_agent_registers_again(
    registry: FakeRegistry, registration: Registration
) -> None:
    await registration.heartbeat()
    assert registration.agent_id == "agent_1"
    registry.known_secret = ""
    await registration.heartbeat()
    assert registration.agent_id == "agent_2"
    assert registry.presented == [None, "secret-1"]


async def test_heartbeat_takes_over_a_new_task_key(registry: FakeRegistry, registration: Registration) -> None:
    first, registry.signer = registry.signer, TaskSigner("another task signing key, long enough")
    await registration.heartbeat()
    current = await registration.current()
    assert current is not None
    assert current.task_key == registry.signer.public_key != first.public_key
    assert (current.agent_id, current.agent_secret) == ("agent_1", "secret-1")


async def test_deregister_deletes_the_current_registration(registry: FakeRegistry, registration: Registration) -> None:
    registry.known_secret = ""
    await registration.heartbeat()
    await registration.deregister()
    assert registry.calls[-1] == "DELETE /orchestrator/agents/agent_2"


async def test_deregister_while_the_orchestrator_is_away_is_not_an_error(
    registry: FakeRegistry, registration: Registration
) -> None:
    registry.away = True
    await registration.deregister()
    assert registry.calls[-1] == "DELETE /orchestrator/agents/agent_1"


async def test_heartbeats_continue_after_failures(registry: FakeRegistry, registration: Registration) -> None:
    registry.away, registry.called = True, asyncio.Semaphore(0)
    sending = asyncio.create_task(registration.send_heartbeats())
    async with asyncio.timeout(2):
        for away in (True, True, False, False):
            registry.away = away
            await registry.called.acquire()
    assert not sending.done()
    assert registration.agent_id == "agent_1"
    sending.cancel()


async def test_heartbeats_continue_after_an_unreadable_answer(
    registry: FakeRegistry, registration: Registration
) -> None:
    registry.nonsense, registry.known_secret = True, ""
    sending = asyncio.create_task(registration.send_heartbeats())
    async with asyncio.timeout(5):
        while registry.calls.count("POST /orchestrator/agents/register") < 2:
            await registry.called.acquire()
        registry.nonsense = False
        while registration.agent_id != "agent_2":
            await registry.called.acquire()
    assert not sending.done()
    sending.cancel()
