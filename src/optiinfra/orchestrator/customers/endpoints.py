"""Routes of one customer: preferences, onboarding, deletion."""

from fastapi import APIRouter

from optiinfra.api.customers import CloudTrust, Customer, Onboard, Preferences, Started
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import OWNERS, require_tenant, require_tenant_or_admin
from optiinfra.orchestrator.background import start_in_background
from optiinfra.orchestrator.customers import deletion, service
from optiinfra.orchestrator.inventory.service import discover
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/customers/{customer_id}")

LONG_CALLS = ("DELETE /customers/[^/]+",)  # waits for the customer's workflows to end


@router.get("")
async def customer(customer_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> Customer:
    """One customer."""
    require_tenant_or_admin(principal, customer_id)
    return await service.get(platform, customer_id)


@router.patch("/preferences")
async def preferences(
    customer_id: str, changes: Preferences, principal: CurrentPrincipal, platform: CurrentPlatform
) -> Preferences:
    """Change some preferences, keep the others."""
    require_tenant(principal, customer_id, OWNERS)
    return await service.update_preferences(platform, customer_id, changes.model_dump(mode="json", exclude_unset=True))


@router.get("/cloud-trust")
async def cloud_trust(customer_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> CloudTrust:
    """The policies to paste into the role, before its account is connected."""
    require_tenant(principal, customer_id, OWNERS)
    return await service.cloud_trust(platform, customer_id)


@router.post("/onboard", status_code=202, responses=error_responses(409))
async def onboard(customer_id: str, principal: CurrentPrincipal, platform: CurrentPlatform, body: Onboard) -> Started:
    """Connect a cloud account and discover what is in it."""
    require_tenant(principal, customer_id, OWNERS)
    account_id = await service.add_cloud_account(platform, customer_id, body)
    start_in_background(discover(platform, customer_id, account_id))
    return Started()


@router.delete("", status_code=204, responses=error_responses(409))
async def delete_customer(customer_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> None:
    """Delete the customer and all of their data."""
    require_tenant_or_admin(principal, customer_id, OWNERS)
    await deletion.delete_customer(platform, customer_id, principal.kind)
