"""Registration and heartbeats of agents."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header

from optiinfra.api.agents import Agent as RegisteredAgent
from optiinfra.api.agents import Heartbeat, HeartbeatAccepted, Register, Registered
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import Agent, Enrolment, UserOrAdmin
from optiinfra.orchestrator.agents import service
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.idempotency import Keyed
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/orchestrator/agents", route_class=LateBodyRoute)


async def _itself(agent_id: str, principal: Agent) -> str:
    """The id of the calling agent, which may only speak for itself."""
    if principal.subject != agent_id:
        raise NotFound("agent")
    return agent_id


ItsOwnId = Annotated[str, Depends(_itself)]


@router.post("/register", status_code=201, responses=error_responses(409))
async def register(
    body: Register,
    _enrolment: Enrolment,
    platform: CurrentPlatform,
    keyed: Keyed,
    agent_secret: Annotated[str | None, Header(max_length=200)] = None,
) -> Registered:
    """Register a starting agent. Only its own secret takes an address from an agent that is alive."""
    return await service.register(platform, body, agent_secret, keyed)


@router.post("/{agent_id}/heartbeat")
async def heartbeat(agent_id: ItsOwnId, body: Heartbeat, platform: CurrentPlatform, keyed: Keyed) -> HeartbeatAccepted:
    """Receive an agent's heartbeat."""
    return await service.heartbeat(platform, agent_id, body, keyed)


@router.delete("/{agent_id}", status_code=204)
async def deregister(agent_id: ItsOwnId, platform: CurrentPlatform) -> None:
    """Deregister an agent."""
    await service.deregister(platform, agent_id)


@router.get("")
async def agents(principal: UserOrAdmin, platform: CurrentPlatform) -> list[RegisteredAgent]:
    """Every registered agent."""
    listed = await service.list_agents(platform)
    if principal.kind == "admin":
        return listed
    return [agent.model_copy(update={"hostname": None, "base_url": None}) for agent in listed]
