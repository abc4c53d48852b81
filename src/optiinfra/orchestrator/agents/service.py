"""The registry of agents."""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

import structlog
from sqlalchemy import func, select, update

from optiinfra.api.agents import Agent, Heartbeat, HeartbeatAccepted, Register, Registered
from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.kit.task_requests import task_signer
from optiinfra.orchestrator.errors import Conflict, Invalid, NotFound
from optiinfra.orchestrator.idempotency import KeyedRequest, remember, remember_issued, replay
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.settings import networks
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import notify_after_commit

log = structlog.get_logger(__name__)

REGISTRATIONS = "agents"
"""The channel that is notified when an agent registers."""

_MISSED_HEARTBEATS = 3


def presence_seconds(heartbeat_seconds: float) -> float:
    """How long an agent counts as alive after a heartbeat."""
    return heartbeat_seconds * _MISSED_HEARTBEATS


async def register(
    platform: Platform, body: Register, presented_secret: str | None, keyed: KeyedRequest | None = None
) -> Registered:
    """Register a starting agent; an earlier one with the same address is deregistered.

    Raises Invalid for an address outside of the agents' networks. While the earlier one is alive, only its own secret
    replaces it: Conflict without.
    """
    _require_allowed(platform, body.base_url)
    agent_id, secret = new_id("agent"), new_secret("agsec")
    table = models.Agent
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        # Of simultaneous registrations with one address, the next one sees what the one before it has stored.
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(body.base_url, 0))))
        earlier = table.base_url == body.base_url, table.deregistered_at.is_(None)
        holders = (await session.scalars(select(table).where(*earlier))).all()
        others = [row for row in holders if row.secret_hash != secret_hash(presented_secret or "")]
        if await _alive(platform, others):
            raise Conflict("address_in_use", f"an agent at {body.base_url} is alive: send its secret, or wait")
        await session.execute(update(table).where(*earlier).values(deregistered_at=now()))
        session.add(table(id=agent_id, secret_hash=secret_hash(secret), **body.model_dump()))
        await session.flush()
        await remember_issued(session, keyed, agent_id=agent_id)
        await platform.presence.refresh(agent_id)  # before waiting dispatchers are notified
        notify_after_commit(session, REGISTRATIONS)
    log.info("agent registered", agent_id=agent_id, type=body.agent_type, base_url=body.base_url)
    return Registered(
        agent_id=agent_id,
        agent_secret=secret,
        heartbeat_seconds=platform.settings.heartbeat_seconds,
        task_key=task_signer(platform.settings.task_signing_key).public_key,
    )


def _require_allowed(platform: Platform, base_url: str) -> None:
    try:
        address = ip_address(urlsplit(base_url).hostname or "")
    except ValueError:
        raise Invalid("body.base_url: the host must be an IP address, as names may change") from None
    if not any(address in network for network in networks(platform.settings.agent_networks)):
        raise Invalid("body.base_url: the address is in none of the agents' networks")


async def authenticate(platform: Platform, secret: str) -> Principal | None:
    """The agent that a secret belongs to; None for an unknown or deregistered one."""
    valid = models.Agent.secret_hash == secret_hash(secret), models.Agent.deregistered_at.is_(None)
    async with platform.database.transaction() as session:
        row = await session.scalar(select(models.Agent).where(*valid))
    return None if row is None else Principal("agent", row.id)


async def heartbeat(
    platform: Platform, agent_id: str, body: Heartbeat, keyed: KeyedRequest | None
) -> HeartbeatAccepted:
    """Store a heartbeat; NotFound if the agent has been deregistered meanwhile."""
    table = models.Agent
    columns = {
        "last_heartbeat_at": now(),
        "current_tasks": body.current_tasks,
        "load": body.load,
        "draining": body.status == "draining",
    }
    accepted = HeartbeatAccepted(task_key=task_signer(platform.settings.task_signing_key).public_key)
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        registered = table.id == agent_id, table.deregistered_at.is_(None)
        if await session.scalar(update(table).where(*registered).values(**columns).returning(table.id)) is None:
            raise NotFound("agent")
        await remember(session, keyed, accepted)
    await platform.presence.refresh(agent_id)
    return accepted


async def deregister(platform: Platform, agent_id: str) -> None:
    """Deregister an agent: it gets no more tasks, and its secret is no longer valid."""
    async with platform.database.transaction() as session:
        await session.execute(update(models.Agent).where(models.Agent.id == agent_id).values(deregistered_at=now()))
    await platform.presence.remove(agent_id)


async def list_agents(platform: Platform) -> list[Agent]:
    """The registered agents, oldest first; `status` tells whether they are alive."""
    query = select(models.Agent).where(models.Agent.deregistered_at.is_(None)).order_by(models.Agent.registered_at)
    async with platform.database.transaction() as session:
        rows = (await session.scalars(query)).all()
    alive = await _alive(platform, rows)
    return [
        Agent(
            agent_id=row.id,
            agent_type=row.agent_type,
            status="active" if row.id in alive else "unhealthy",
            version=row.version,
            hostname=row.hostname,
            base_url=row.base_url,
            pool=row.pool,
            capabilities=row.capabilities,
            last_heartbeat_at=row.last_heartbeat_at,
            current_tasks=row.current_tasks,
            load=row.load,
            draining=row.draining,
        )
        for row in rows
    ]


async def _alive(platform: Platform, rows: Sequence[models.Agent]) -> set[str]:
    """The ids of those agents that are alive."""
    alive = await platform.presence.alive([row.id for row in rows])
    if alive is None:  # Redis is unavailable: stored heartbeats give the same answer with a delay
        oldest = now() - timedelta(seconds=presence_seconds(platform.settings.heartbeat_seconds))
        alive = {row.id for row in rows if row.last_heartbeat_at > oldest}
    return alive
