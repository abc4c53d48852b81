"""Who holds an address: agents that register at the same time, in place of one that is alive, or from elsewhere."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import delete, select, update

from optiinfra.api.agents import Register
from optiinfra.api.common import now
from optiinfra.orchestrator.agents import service as registry
from optiinfra.orchestrator.errors import Conflict, Invalid
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database

pytestmark = pytest.mark.anyio

HEARTBEAT_SECONDS = 2.0


class Presence:
    """The agents that are alive, None while Redis is unavailable."""

    def __init__(self) -> None:
        self.keys: set[str] | None = set()
        self.seconds = 0.0
        """How long Redis takes to refresh a key."""

    async def refresh(self, agent_id: str) -> None:
        await asyncio.sleep(self.seconds)
        if self.keys is not None:
            self.keys.add(agent_id)

    async def alive(self, agent_ids: list[str]) -> set[str] | None:
        return None if self.keys is None else self.keys & set(agent_ids)


@pytest.fixture
def presence() -> Presence:
    return Presence()


@pytest.fixture
async def platform(database: Database, presence: Presence) -> Any:
    settings = SimpleNamespace(
        heartbeat_seconds=HEARTBEAT_SECONDS,
        task_signing_key="k" * 48,
        agent_networks="127.0.0.0/8, 10.1.0.0/16,::1/128",
    )
    yield cast("Platform", SimpleNamespace(database=database, presence=presence, settings=settings))
    async with database.transaction() as session:
        await session.execute(delete(models.Agent))


def body(base_url: str = "http://127.0.0.1:8011") -> Register:
    return Register(agent_type="cost", version="1", capabilities=[], hostname="h", base_url=base_url)


async def registered(platform: Platform) -> list[str]:
    """The ids of the agents that are not deregistered."""
    table = models.Agent
    async with platform.database.transaction() as session:
        return list(await session.scalars(select(table.id).where(table.deregistered_at.is_(None))))


async def test_simultaneous_registrations_with_one_address_leave_one_agent(
    platform: Platform, presence: Presence
) -> None:
    presence.seconds = 0.3  # the first one is not committed when the others look
    outcomes = await asyncio.gather(
        *(registry.register(platform, body(), None) for _ in range(12)), return_exceptions=True
    )
    winner, *others = [each for each in outcomes if not isinstance(each, BaseException)]
    assert others == []
    assert [type(each) for each in outcomes].count(Conflict) == 11
    assert await registered(platform) == [winner.agent_id]
    assert presence.keys == {winner.agent_id}, "an agent that was refused must not count as alive"


@pytest.mark.parametrize("redis", [True, False])
async def test_address_of_a_live_agent_is_given_only_to_its_own_secret(
    platform: Platform, presence: Presence, redis: bool
) -> None:
    if not redis:
        presence.keys = None
    first = await registry.register(platform, body(), None)
    stranger = await registry.register(platform, body("http://127.0.0.1:8012"), None)
    for secret in (None, "", "agsec_wrong", stranger.agent_secret):
        with pytest.raises(Conflict, match=r"http://127\.0\.0\.1:8011 is alive") as refused:
            await registry.register(platform, body(), secret)
        assert refused.value.code == "address_in_use"
    for same in ("http://127.1:8011", "http://0x7f.0.0.1:08011", "http://127.0.0.1:8011/"):
        with pytest.raises((Conflict, ValueError)):
            await registry.register(platform, body(same), None)
    assert await registry.authenticate(platform, first.agent_secret) is not None
    second = await registry.register(platform, body(), first.agent_secret)
    assert await registered(platform) == [stranger.agent_id, second.agent_id]
    assert await registry.authenticate(platform, first.agent_secret) is None


@pytest.mark.parametrize("redis", [True, False])
async def test_address_of_an_agent_that_is_gone_is_free(platform: Platform, presence: Presence, redis: bool) -> None:
    first = await registry.register(platform, body(), None)
    presence.keys = set() if redis else None
    if not redis:
        silent = now() - timedelta(seconds=3 * HEARTBEAT_SECONDS + 0.1)
        async with platform.database.transaction() as session:
            await session.execute(update(models.Agent).values(last_heartbeat_at=silent))
    second = await registry.register(platform, body(), None)
    assert await registered(platform) == [second.agent_id] != [first.agent_id]


@pytest.mark.parametrize(
    ("base_url", "allowed"),
    [
        ("http://127.0.0.1:1", True),
        ("https://127.255.255.254", True),
        ("http://[::1]:8011", True),
        ("http://10.1.255.255:1", True),
        ("http://10.2.0.0:1", False),
        ("http://169.254.169.254", False),
        ("http://0.0.0.0:1", False),
        ("http://[::ffff:10.1.0.1]:1", False),
        ("http://[::2]:1", False),
        ("http://localhost:1", False),
        ("http://127.0.0.1.example.com", False),
    ],
)
async def test_address_must_be_in_the_agents_networks(platform: Platform, base_url: str, allowed: bool) -> None:
    if allowed:
        await registry.register(platform, body(base_url), None)
        return
    with pytest.raises(Invalid, match=r"body\.base_url"):
        await registry.register(platform, body(base_url), None)
    assert await registered(platform) == []
