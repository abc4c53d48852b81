"""Routes of the credentials of a customer's programs. Only owners see or change them."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.credentials import AgentToken, ApiKey, InstallCommand, IssuedApiKey, NewApiKey
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import OwnersCustomer
from optiinfra.orchestrator.credentials import agent_tokens, api_keys
from optiinfra.orchestrator.idempotency import Keyed
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/customers/{customer_id}", route_class=LateBodyRoute)

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/agent-install-command", status_code=201, responses=error_responses(409))
async def agent_install_command(customer_id: OwnersCustomer, platform: CurrentPlatform, keyed: Keyed) -> InstallCommand:
    """Issue a token for the customer's runtime; the response says how to start it."""
    return await agent_tokens.issue(platform, customer_id, keyed)


@router.get("/agent-tokens")
async def list_agent_tokens(
    customer_id: OwnersCustomer, platform: CurrentPlatform, limit: Limit = 100
) -> list[AgentToken]:
    """The agent tokens that can be used, newest first."""
    return await agent_tokens.listed(platform, customer_id, limit)


@router.delete("/agent-tokens/{token_id}", status_code=204)
async def delete_agent_token(customer_id: OwnersCustomer, token_id: str, platform: CurrentPlatform) -> None:
    """End an agent token at once."""
    await agent_tokens.revoke(platform, customer_id, token_id)


@router.post("/api-keys", status_code=201, responses=error_responses(409))
async def issue_api_key(
    customer_id: OwnersCustomer, body: NewApiKey, platform: CurrentPlatform, keyed: Keyed
) -> IssuedApiKey:
    """Issue an API key."""
    return await api_keys.issue(platform, customer_id, body, keyed)


@router.get("/api-keys")
async def list_api_keys(customer_id: OwnersCustomer, platform: CurrentPlatform, limit: Limit = 100) -> list[ApiKey]:
    """The API keys that can be used, newest first."""
    return await api_keys.listed(platform, customer_id, limit)


@router.delete("/api-keys/{key_id}", status_code=204)
async def delete_api_key(customer_id: OwnersCustomer, key_id: str, platform: CurrentPlatform) -> None:
    """End an API key at once."""
    await api_keys.revoke(platform, customer_id, key_id)
