"""The registry of agents, and handing them tasks: another one is asked where the first does not answer."""

import asyncio
import time
from datetime import timedelta
from typing import TypeVar

import httpx
import jwt
import structlog
from sqlalchemy import select, update

from optiinfra.api.agents import Agent, AnalyzeTask, Heartbeat, JudgeTask, Register, Registered, ValidateTask
from optiinfra.api.common import Wire, now
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import notify_after_commit

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer", bound=Wire)

_MISSED_HEARTBEATS = 3
_CHANNEL = "agents"
_AWAY_SECONDS = 0.5
_PASSING = ("problem:store_unavailable", "problem:starting")
"""What an agent answers with 503 that will pass by itself."""


class _Away(Exception):  # noqa: N818  named after the condition
    """The agent is there, but misses what it needs for now."""


class AgentError(Exception):
    """No agent could do a task; the text says which were asked and what each said."""


def presence_seconds(heartbeat_seconds: float) -> float:
    """How long an agent counts as present after a sign of life."""
    return heartbeat_seconds * _MISSED_HEARTBEATS


async def register(platform: Platform, body: Register) -> Registered:
    """Take a starting agent in. Whoever held its address before is gone."""
    agent_id, secret = new_id("agent"), new_secret("agsec")
    table = models.Agent
    await platform.presence.refresh(agent_id)  # before anybody is woken to look for it
    async with platform.database.transaction() as session:
        former = table.base_url == body.base_url, table.deregistered_at.is_(None)
        await session.execute(update(table).where(*former).values(deregistered_at=now()))
        session.add(table(id=agent_id, secret_hash=secret_hash(secret), **body.model_dump()))
        notify_after_commit(session, _CHANNEL)
    log.info("agent registered", agent_id=agent_id, type=body.agent_type, base_url=body.base_url)
    return Registered(agent_id=agent_id, agent_secret=secret, heartbeat_seconds=platform.settings.heartbeat_seconds)


async def authenticate(platform: Platform, secret: str) -> Principal | None:
    """The agent that a secret belongs to, None for an unknown or deregistered one."""
    mine = models.Agent.secret_hash == secret_hash(secret), models.Agent.deregistered_at.is_(None)
    async with platform.database.transaction() as session:
        row = await session.scalar(select(models.Agent).where(*mine))
    return None if row is None else Principal("agent", row.id)


async def heartbeat(platform: Platform, agent_id: str, body: Heartbeat) -> None:
    """Note a sign of life."""
    columns = {
        "last_heartbeat_at": now(),
        "current_tasks": body.current_tasks,
        "load": body.load,
        "draining": body.status == "draining",
    }
    async with platform.database.transaction() as session:
        await session.execute(update(models.Agent).where(models.Agent.id == agent_id).values(**columns))
    await platform.presence.refresh(agent_id)


async def deregister(platform: Platform, agent_id: str) -> None:
    """Let an agent go; it gets no task any more."""
    async with platform.database.transaction() as session:
        await session.execute(update(models.Agent).where(models.Agent.id == agent_id).values(deregistered_at=now()))
    await platform.presence.remove(agent_id)


async def listing(platform: Platform) -> list[Agent]:
    """Agents that registered and did not leave, with whether they live."""
    query = select(models.Agent).where(models.Agent.deregistered_at.is_(None)).order_by(models.Agent.registered_at)
    async with platform.database.transaction() as session:
        rows = (await session.scalars(query)).all()
    alive = await platform.presence.alive([row.id for row in rows])
    if alive is None:  # Redis is away: the heartbeats themselves tell as much, less promptly
        long_ago = now() - timedelta(seconds=presence_seconds(platform.settings.heartbeat_seconds))
        alive = {row.id for row in rows if row.last_heartbeat_at > long_ago}
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


async def ask(
    platform: Platform,
    agent_type: AgentType,
    task: AnalyzeTask | ValidateTask | JudgeTask,
    answer_type: type[Answer],
) -> Answer:
    """Have a living agent of that type do a task, the least loaded first, another when one fails.

    One that misses a store is asked again a little later. The task's id makes asking again harmless. Raises AgentError
    when none is there in time or none could do it.
    """
    refused: dict[str, str] = {}
    away: dict[str, str] = {}

    async def candidates() -> list[Agent] | None:
        able = [
            agent
            for agent in await listing(platform)
            if agent.agent_type == agent_type
            and agent.status == "active"
            and not agent.draining
            and agent.pool == platform.settings.agent_pool
            and task.kind in agent.capabilities
            and agent.agent_id not in refused
        ]
        return sorted(able, key=lambda agent: (agent.agent_id in away, agent.load, agent.current_tasks)) or None

    allowed = platform.settings.agent_wait_seconds
    ends, awaited = time.monotonic() + allowed, False
    # One that crashed is started again and registers under another id: worth waiting for. One that failed at the task
    # would fail again.
    while found := await platform.wake.wait_for(
        _CHANNEL, candidates, ends - time.monotonic() if awaited or not refused else 0.0
    ):
        agent = found[0]
        try:
            return answer_type.model_validate(await _post(platform, agent, task))
        except _Away as error:
            away[agent.agent_id] = str(error)
            if time.monotonic() > ends:
                break
            await asyncio.sleep(_AWAY_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            awaited = awaited or _comes_back(error)
            refused[agent.agent_id] = f"{type(error).__name__}: {error}"
            log.warning("agent failed a task", agent_id=agent.agent_id, kind=task.kind, error=refused[agent.agent_id])
    if said := refused | away:
        raise AgentError(f"no {agent_type} agent could {task.kind}: {said}")
    raise AgentError(f"no {agent_type} agent that can {task.kind} was there within {allowed:.0f} s")


def _comes_back(error: Exception) -> bool:
    """Whether it will register soon: its process is gone, or has just started and does not know its former id."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.UNAUTHORIZED
    return isinstance(error, httpx.TransportError)


async def _post(platform: Platform, agent: Agent, task: AnalyzeTask | ValidateTask | JudgeTask) -> object:
    claims = {"aud": agent.agent_id, "sub": "orchestrator", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, platform.settings.enrolment_secret, algorithm="HS256")
    response = await platform.agents_http.post(
        f"{agent.base_url}/tasks",
        content=task.model_dump_json(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        timeout=platform.settings.agent_task_seconds,
    )
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and any(word in response.text for word in _PASSING):
        raise _Away(response.text[:300])
    response.raise_for_status()
    return response.json()
