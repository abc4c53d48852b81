"""Registration and heartbeats of agents."""

from fastapi import APIRouter

from optiinfra.api.agents import Agent, Heartbeat, HeartbeatAccepted, Register, Registered
from optiinfra.kit.auth import CurrentPrincipal, Principal
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


@router.post("/register", status_code=201)
async def register(body: Register, principal: CurrentPrincipal, platform: CurrentPlatform) -> Registered:
    """Register a starting agent."""
    require_kind(principal, "enrolment")
    return await service.register(platform, body)


@router.post("/{agent_id}/heartbeat")
async def heartbeat(
    agent_id: str, body: Heartbeat, principal: CurrentPrincipal, platform: CurrentPlatform
) -> HeartbeatAccepted:
    """Receive an agent's heartbeat."""
    _require_agent(principal, agent_id)
    await service.heartbeat(platform, agent_id, body)
    return HeartbeatAccepted()


@router.delete("/{agent_id}", status_code=204)
async def deregister(agent_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> None:
    """Deregister an agent."""
    _require_agent(principal, agent_id)
    await service.deregister(platform, agent_id)


@router.get("")
async def agents(principal: CurrentPrincipal, platform: CurrentPlatform) -> list[Agent]:
    """Every registered agent."""
    require_kind(principal, "admin", "user", "api_key")
    return await service.list_agents(platform)
