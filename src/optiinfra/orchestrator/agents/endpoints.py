"""Registration and heartbeats of agents."""

from typing import Annotated

from fastapi import APIRouter, Header

from optiinfra.api.agents import Agent, Heartbeat, HeartbeatAccepted, Register, Registered
from optiinfra.kit.auth import CurrentPrincipal, Principal
from optiinfra.kit.openapi import error_responses
from optiinfra.kit.task_requests import task_signer
from optiinfra.orchestrator.access import require_kind
from optiinfra.orchestrator.agents import service
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/orchestrator/agents")


def _require_agent(principal: Principal, agent_id: str) -> None:
    """An agent may only speak for itself: Forbidden for other callers, NotFound for another agent's id."""
    require_kind(principal, "agent")
    if principal.subject != agent_id:
        raise NotFound("agent")


@router.post("/register", status_code=201, responses=error_responses(409))
async def register(
    body: Register,
    principal: CurrentPrincipal,
    platform: CurrentPlatform,
    agent_secret: Annotated[str | None, Header(max_length=200)] = None,
) -> Registered:
    """Register a starting agent. Only its own secret takes an address from an agent that is alive."""
    require_kind(principal, "enrolment")
    return await service.register(platform, body, agent_secret)


@router.post("/{agent_id}/heartbeat")
async def heartbeat(
    agent_id: str, body: Heartbeat, principal: CurrentPrincipal, platform: CurrentPlatform
) -> HeartbeatAccepted:
    """Receive an agent's heartbeat."""
    _require_agent(principal, agent_id)
    await service.heartbeat(platform, agent_id, body)
    return HeartbeatAccepted(task_key=task_signer(platform.settings.task_signing_key).public_key)


@router.delete("/{agent_id}", status_code=204)
async def deregister(agent_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> None:
    """Deregister an agent."""
    _require_agent(principal, agent_id)
    await service.deregister(platform, agent_id)


@router.get("")
async def agents(principal: CurrentPrincipal, platform: CurrentPlatform) -> list[Agent]:
    """Every registered agent."""
    require_kind(principal, "admin", "user", "api_key")
    listed = await service.list_agents(platform)
    if principal.kind == "admin":
        return listed
    return [agent.model_copy(update={"hostname": None, "base_url": None}) for agent in listed]
