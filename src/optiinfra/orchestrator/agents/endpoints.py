"""Where agents call in."""

from fastapi import APIRouter

from optiinfra.api.agents import Agent, Heartbeat, HeartbeatAccepted, Register, Registered
from optiinfra.kit.auth import CurrentPrincipal, Principal
from optiinfra.kit.problems import not_found
from optiinfra.orchestrator.access import require_kind
from optiinfra.orchestrator.agents import service
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/orchestrator/agents")


def _itself(principal: Principal, agent_id: str) -> None:
    require_kind(principal, "agent")
    if principal.subject != agent_id:
        raise not_found("agent")


@router.post("/register", status_code=201)
async def register(body: Register, principal: CurrentPrincipal, platform: CurrentPlatform) -> Registered:
    """Take a starting agent in."""
    require_kind(principal, "enrolment")
    return await service.register(platform, body)


@router.post("/{agent_id}/heartbeat")
async def heartbeat(
    agent_id: str, body: Heartbeat, principal: CurrentPrincipal, platform: CurrentPlatform
) -> HeartbeatAccepted:
    """An agent's sign of life."""
    _itself(principal, agent_id)
    await service.heartbeat(platform, agent_id, body)
    return HeartbeatAccepted()


@router.delete("/{agent_id}", status_code=204)
async def deregister(agent_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> None:
    """An agent leaves."""
    _itself(principal, agent_id)
    await service.deregister(platform, agent_id)


@router.get("")
async def agents(principal: CurrentPrincipal, platform: CurrentPlatform) -> list[Agent]:
    """Every agent that registered and did not leave."""
    require_kind(principal, "admin", "user")
    return await service.listing(platform)
