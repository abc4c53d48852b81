"""Routes of one customer: preferences, onboarding, deletion."""

from fastapi import APIRouter

from optiinfra.api.customers import CloudTrust, Customer, Onboard, Preferences, Started
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import (
    ApprovingUsersCustomer,
    ApprovingUsersCustomerOrAdmin,
    OwnCustomerOrAdmin,
    OwnersCustomer,
)
from optiinfra.orchestrator.background import start_in_background
from optiinfra.orchestrator.customers import deletion, service
from optiinfra.orchestrator.idempotency import Keyed
from optiinfra.orchestrator.inventory.service import discover
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/customers/{customer_id}", route_class=LateBodyRoute)

LONG_CALLS = ("DELETE /customers/[^/]+",)  # waits for the customer's workflows to end


@router.get("")
async def customer(customer_id: OwnCustomerOrAdmin, platform: CurrentPlatform) -> Customer:
    """One customer."""
    return await service.get(platform, customer_id)


@router.patch("/preferences")
async def preferences(
    customer_id: ApprovingUsersCustomer, changes: Preferences, platform: CurrentPlatform
) -> Preferences:
    """Change some preferences, keep the others."""
    return await service.update_preferences(platform, customer_id, changes.model_dump(mode="json", exclude_unset=True))


@router.get("/cloud-trust")
async def cloud_trust(customer_id: OwnersCustomer, platform: CurrentPlatform) -> CloudTrust:
    """The policies to paste into the role, before its account is connected."""
    return await service.cloud_trust(platform, customer_id)


@router.post("/onboard", status_code=202, responses=error_responses(409, 429))
async def onboard(customer_id: OwnersCustomer, platform: CurrentPlatform, body: Onboard, keyed: Keyed) -> Started:
    """Connect a cloud account and discover what is in it."""
    account_id = await service.add_cloud_account(platform, customer_id, body, keyed)
    start_in_background(discover(platform, customer_id, account_id))
    return Started()


@router.delete("", status_code=204, responses=error_responses(409))
async def delete_customer(
    customer_id: ApprovingUsersCustomerOrAdmin, principal: CurrentPrincipal, platform: CurrentPlatform
) -> None:
    """Delete the customer and all of their data."""
    await deletion.delete_customer(platform, customer_id, principal.kind)
