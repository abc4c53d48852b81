"""Sign-up, sign-in, refresh, sign-out."""

from fastapi import APIRouter
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from optiinfra.api.accounts import Identity, Login, Refresh, SignedUp, Signup, Tokens
from optiinfra.api.common import now
from optiinfra.api.customers import Preferences
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.kit.ids import new_id
from optiinfra.kit.openapi import may_answer
from optiinfra.kit.problems import Problem
from optiinfra.orchestrator.access import require_user
from optiinfra.orchestrator.accounts import passwords, tokens
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.stores.postgres import models

router = APIRouter(prefix="/auth")

PUBLIC = ("/auth/signup", "/auth/login", "/auth/refresh")


@router.post("/signup", status_code=201, responses=may_answer(409))
async def signup(body: Signup, platform: CurrentPlatform) -> SignedUp:
    """Create a customer and its owner."""
    customer_id = new_id("cust")
    password_hash = await passwords.hash_password(body.password)
    try:
        async with platform.database.transaction() as session:
            session.add(
                models.Customer(
                    id=customer_id,
                    company_name=body.company_name,
                    plan=body.plan,
                    preferences=Preferences().model_dump(mode="json"),
                )
            )
            await session.flush()
            session.add(
                models.User(
                    id=new_id("user"),
                    customer_id=customer_id,
                    email=body.email.lower(),
                    password_hash=password_hash,
                    role="owner",
                )
            )
    except IntegrityError:
        raise Problem(409, "email_taken", f"{body.email} has an account already: sign in instead") from None
    return SignedUp(customer_id=customer_id)


@router.post("/login", responses=may_answer(401))
async def login(body: Login, platform: CurrentPlatform) -> Tokens:
    """Sign in with e-mail address and password."""
    async with platform.database.transaction() as session:
        user = await session.scalar(select(models.User).where(models.User.email == body.username.lower()))
    # Between transactions: verifying takes long on purpose, and connections are few.
    if not await passwords.verify(user.password_hash if user else None, body.password) or user is None:
        raise Problem(401, "wrong_credentials", "wrong e-mail address or password")
    async with platform.database.transaction() as session:
        return await tokens.issue(session, platform.settings, user)


@router.post("/refresh", responses=may_answer(401))
async def refresh(body: Refresh, platform: CurrentPlatform) -> Tokens:
    """Exchange a refresh token, which can be used once, for new tokens."""
    async with platform.database.transaction() as session:
        renewed = await tokens.rotate(session, platform.settings, body.refresh_token)
    if renewed is None:
        raise Problem(401, "refresh_refused", "this refresh token is unknown, used, revoked or expired: sign in again")
    return renewed


@router.post("/logout", status_code=204)
async def logout(principal: CurrentPrincipal, platform: CurrentPlatform) -> None:
    """End every sign-in of the user: no refresh token works any more."""
    require_user(principal)
    async with platform.database.transaction() as session:
        mine = models.RefreshToken.user_id == principal.subject
        await session.execute(update(models.RefreshToken).where(mine).values(revoked_at=now()))


@router.get("/me")
async def me(principal: CurrentPrincipal, platform: CurrentPlatform) -> Identity:
    """Who the token belongs to."""
    require_user(principal)
    async with platform.database.transaction() as session:
        user = await session.get(models.User, principal.subject)
    if user is None:
        raise Problem(401, "unauthenticated", "this account is gone")
    return Identity.model_validate(user, from_attributes=True)
