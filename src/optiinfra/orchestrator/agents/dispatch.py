"""Dispatch of tasks to agents: the least loaded first, with failover to another one."""

import asyncio
import time

import httpx
import structlog

from optiinfra.api.agents import FULL_LOAD_TASKS, Agent
from optiinfra.api.problems import STARTING, STORE_UNAVAILABLE
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.task_requests import task_signer
from optiinfra.kit.tasks import counted
from optiinfra.orchestrator.agents.answers import Answer, Task, valid_answer
from optiinfra.orchestrator.agents.service import REGISTRATIONS, list_agents
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.platform import Platform

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5
_ERROR_CHARACTERS = 500
"""How much of an error is kept: that of an invalid answer quotes all that is wrong with it."""
_TEMPORARY = frozenset({STORE_UNAVAILABLE, STARTING})
"""Problem types of temporary 503 responses."""


class AgentError(Exception):
    """No agent could do a task; the text names those that were tried and the error of each."""


class _AgentUnavailable(Exception):  # noqa: N818  named after the condition
    """The agent responds, but cannot execute tasks at the moment."""


async def dispatch_task(platform: Platform, agent_type: AgentType, task: Task, answer_type: type[Answer]) -> Answer:
    """Have an agent of that type do a task, and return its answer.

    An agent that fails or answers something invalid is not tried again; one that is temporarily unavailable is, if no
    other can do it. The task's id makes this idempotent. Raises AgentError when no agent registered before the deadline
    or none could do it.
    """
    wait_seconds = platform.settings.agent_wait_seconds
    deadline = time.monotonic() + wait_seconds
    failed: dict[str, str] = {}  # error by agent id
    unavailable: dict[str, str] = {}
    restart_expected = False
    while True:
        # After a failure, wait for another agent only if the failed one is restarting.
        wait = deadline - time.monotonic() if restart_expected or not failed else 0.0
        agent = await _next_agent(platform, agent_type, task, failed, unavailable, wait)
        if agent is None:
            break
        try:
            with counted(platform.tasks_in_flight, agent.agent_id):
                content = await _post(platform, agent, task)
            return valid_answer(agent_type, task, answer_type, content)
        except _AgentUnavailable as error:
            unavailable[agent.agent_id] = str(error)
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_RETRY_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            failed[agent.agent_id] = _described(error)
            restart_expected = restart_expected or _is_restart(error)
            log.warning(
                "agent task failed", agent_id=agent.agent_id, kind=task.kind, error=str(error)[:_ERROR_CHARACTERS]
            )
            if isinstance(error, httpx.NetworkError | httpx.ProtocolError):
                await _record_unhealthy(platform, agent, task)
    if answers := failed | unavailable:
        raise AgentError(f"no {agent_type} agent could {task.kind}: {answers}")
    raise AgentError(f"no {agent_type} agent that can {task.kind} registered within {wait_seconds:.0f} s")


async def _next_agent(
    platform: Platform,
    agent_type: AgentType,
    task: Task,
    failed: dict[str, str],
    unavailable: dict[str, str],
    wait_seconds: float,
) -> Agent | None:
    """The least loaded agent for a task, waiting for one to register; those that were unavailable come last."""

    async def candidates() -> list[Agent] | None:
        able = [
            agent
            for agent in await list_agents(platform)
            if agent.agent_type == agent_type
            and agent.status == "active"
            and not agent.draining
            and agent.pool == platform.settings.agent_pool
            and task.kind in agent.capabilities
            and agent.agent_id not in failed
        ]
        return able or None

    found = await platform.wake.wait_for(REGISTRATIONS, candidates, wait_seconds)
    # Chosen after the last `await`, so that concurrent tasks see each other in flight.
    return min(found, key=lambda agent: (agent.agent_id in unavailable, *_load(platform, agent))) if found else None


def _load(platform: Platform, agent: Agent) -> tuple[float, int]:
    """An agent's load now: as of its last heartbeat, and the tasks that we have sent since; then its tasks."""
    in_flight = platform.tasks_in_flight[agent.agent_id]
    unreported = max(0, in_flight - agent.current_tasks)
    return agent.load + unreported / FULL_LOAD_TASKS, agent.current_tasks + unreported


def _described(error: Exception) -> str:
    """What went wrong, for the customer, who is not shown the agent's address."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered {error.response.status_code}"
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        return type(error).__name__
    return f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]


async def _record_unhealthy(platform: Platform, agent: Agent, task: Task) -> None:
    """Tell the customer that the agent which did their task is gone."""
    payload = {"agent_id": agent.agent_id, "task_id": task.task_id, "task": task.kind}
    async with platform.database.transaction() as session:
        await record(session, task.customer_id, "agent_unhealthy", "orchestrator", payload, agent_type=agent.agent_type)


def _is_restart(error: Exception) -> bool:
    """Whether the agent will register soon: it is unreachable, or was restarted and no longer knows its old id."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == httpx.codes.UNAUTHORIZED
    return isinstance(error, httpx.TransportError)


async def _post(platform: Platform, agent: Agent, task: Task) -> bytes:
    body = task.model_dump_json().encode()
    token = task_signer(platform.settings.task_signing_key).sign(agent.agent_id, task.task_id, body)
    response = await platform.agents_http.post(
        f"{agent.base_url}/tasks",
        content=body,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        timeout=platform.settings.agent_task_seconds,
    )
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and _problem_type(response) in _TEMPORARY:
        raise _AgentUnavailable(response.text[:300])
    response.raise_for_status()
    return response.content


def _problem_type(response: httpx.Response) -> str | None:
    """The `type` of a problem details response; None for any other body."""
    try:
        body = response.json()
    except ValueError:
        return None
    return body.get("type") if isinstance(body, dict) else None
