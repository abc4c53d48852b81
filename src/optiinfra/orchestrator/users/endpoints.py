"""Routes of a customer's users. Only owners see, invite and remove them."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.users import AcceptInvitation, Invite, Invited, Joined, User
from optiinfra.kit.auth import Principal
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import OwnersCustomer
from optiinfra.orchestrator.audit.middleware import Attribute
from optiinfra.orchestrator.idempotency import Keyed
from optiinfra.orchestrator.limits import service as limits
from optiinfra.orchestrator.limits.service import ClientAddress
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.orchestrator.users import service

router = APIRouter(route_class=LateBodyRoute)

PUBLIC = ("/auth/accept-invitation",)  # its credential is in the body


@router.post("/customers/{customer_id}/users", status_code=201, responses=error_responses(409))
async def invite(customer_id: OwnersCustomer, body: Invite, platform: CurrentPlatform, keyed: Keyed) -> Invited:
    """Invite a user. A second invitation of an address replaces the first."""
    return await service.invite(platform, customer_id, body, keyed)


@router.get("/customers/{customer_id}/users")
async def users(
    customer_id: OwnersCustomer,
    platform: CurrentPlatform,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[User]:
    """The customer's users, and those who are invited, oldest first."""
    return await service.listed(platform, customer_id, limit)


@router.delete("/customers/{customer_id}/users/{user_id}", status_code=204, responses=error_responses(409))
async def remove(customer_id: OwnersCustomer, user_id: str, platform: CurrentPlatform) -> None:
    """Remove a user, whose sessions end at once, or withdraw an invitation. The last owner cannot be removed."""
    await service.remove(platform, customer_id, user_id)


@router.post("/auth/accept-invitation", status_code=201, responses=error_responses(401, 409, 429))
async def accept_invitation(
    body: AcceptInvitation, platform: CurrentPlatform, address: ClientAddress, attribute: Attribute
) -> Joined:
    """Become a user with the token of an invitation, which can be used once."""
    await limits.admit_sign_up(platform, address)
    user = await service.accept(platform, body)
    attribute(Principal("user", user.user_id, user.customer_id, user.role))
    return user
