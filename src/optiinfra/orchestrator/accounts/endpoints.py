"""Sign-up, sign-in, refresh, sessions, password changes, sign-out."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.accounts import ActiveSession, Identity, Login, PasswordChange, Refresh, SignedUp, Signup, Tokens
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import Person
from optiinfra.orchestrator.accounts import service, sessions
from optiinfra.orchestrator.audit.middleware import Attribute
from optiinfra.orchestrator.limits import service as limits
from optiinfra.orchestrator.limits.service import ClientAddress
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(prefix="/auth", route_class=LateBodyRoute)

PUBLIC = ("/auth/signup", "/auth/login", "/auth/refresh")


@router.post("/signup", status_code=201, responses=error_responses(409, 429))
async def signup(body: Signup, platform: CurrentPlatform, address: ClientAddress, attribute: Attribute) -> SignedUp:
    """Create a customer and its owner."""
    await limits.admit_sign_up(platform, address)
    owner = await service.sign_up(platform, body)
    attribute(owner)
    return SignedUp(customer_id=owner.customer_id or "")


@router.post("/login", responses=error_responses(401, 429))
async def login(body: Login, platform: CurrentPlatform, address: ClientAddress, attribute: Attribute) -> Tokens:
    """Sign in with e-mail address and password."""
    async with limits.limited_sign_in(platform, body.username, address):
        return await service.sign_in(platform, body, attribute)


@router.post("/refresh", responses=error_responses(401))
async def refresh(body: Refresh, platform: CurrentPlatform, attribute: Attribute) -> Tokens:
    """Exchange a refresh token, which can be used once, for new tokens."""
    return await service.refresh(platform, body.refresh_token, attribute)


@router.post("/logout", status_code=204)
async def logout(principal: Person, platform: CurrentPlatform) -> None:
    """End the session of the access token: its tokens are refused from now on, and its event streams are closed."""
    await service.sign_out(platform, principal)


@router.get("/me")
async def me(principal: Person, platform: CurrentPlatform) -> Identity:
    """The user of the access token."""
    return await service.identify(platform, principal.subject)


@router.post("/password", status_code=204, responses=error_responses(429))
async def change_password(
    body: PasswordChange, principal: Person, platform: CurrentPlatform, address: ClientAddress
) -> None:
    """Replace the password, and end all other sessions of the user."""
    async with limits.limited_sign_in(platform, principal.subject, address):
        await service.change_password(platform, principal, body)


@router.get("/sessions")
async def list_sessions(
    principal: Person, platform: CurrentPlatform, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[ActiveSession]:
    """The user's sessions that have not ended, the most recently refreshed first."""
    return await sessions.listed(platform.database, principal, limit)


@router.delete("/sessions/{session_id}", status_code=204)
async def delete_session(session_id: str, principal: Person, platform: CurrentPlatform) -> None:
    """End one of the user's sessions at once."""
    await service.end_session(platform, principal, session_id)
