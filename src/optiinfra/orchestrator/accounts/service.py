"""Sign-up, sign-in, refresh and sign-out."""

from collections.abc import Callable

from optiinfra.api.accounts import Identity, Login, Signup, Tokens
from optiinfra.api.customers import Preferences
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.accounts import passwords, repository, tokens
from optiinfra.orchestrator.errors import Conflict, Unauthenticated
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models


async def sign_up(platform: Platform, body: Signup) -> Principal:
    """Create a customer and its owner, who is returned. Raises Conflict when the address has an account already."""
    password_hash = await passwords.hash_password(body.password)
    customer = models.Customer(
        id=new_id("cust"),
        company_name=body.company_name,
        plan=body.plan,
        preferences=Preferences().model_dump(mode="json"),
    )
    owner = models.User(
        id=new_id("user"),
        customer_id=customer.id,
        email=body.email.lower(),
        password_hash=password_hash,
        role="owner",
    )
    async with platform.database.transaction() as session:
        added = await repository.add_customer(session, customer, owner)
    if not added:
        raise Conflict("email_taken", f"{body.email} has an account already: sign in instead")
    return Principal("user", owner.id, customer.id, owner.role)


async def sign_in(platform: Platform, body: Login, attribute: Callable[[Principal], None]) -> Tokens:
    """New tokens. Raises Unauthenticated for a wrong address or password, without telling which.

    `attribute` is told whose account it is, if there is one.
    """
    async with platform.database.transaction() as session:
        user = await repository.user_by_email(session, body.username)
    if user is not None:
        attribute(Principal("user", user.id, user.customer_id, user.role))
    # Between transactions: verifying takes long on purpose, and connections are few.
    right = await passwords.verify(user.password_hash if user else None, body.password)
    if user is None or not right:
        raise Unauthenticated("wrong_credentials", "wrong e-mail address or password")
    async with platform.database.transaction() as session:
        return await tokens.issue(session, platform.settings, user)


async def refresh(platform: Platform, refresh_token: str, attribute: Callable[[Principal], None]) -> Tokens:
    """New tokens for a refresh token, which can be used once. Raises Unauthenticated for any other.

    `attribute` is told whose token it was.
    """
    async with platform.database.transaction() as session:
        renewed = await tokens.rotate(session, platform.settings, refresh_token)
    if renewed is None:
        raise Unauthenticated(
            "refresh_refused", "this refresh token is unknown, used, revoked or expired: sign in again"
        )
    if (user := tokens.read_access_token(platform.settings, renewed.access_token)) is not None:
        attribute(user)
    return renewed


async def authenticate(platform: Platform, access_token: str) -> Principal | None:
    """The user of a valid access token whose session has not ended; None for any other text."""
    principal = tokens.read_access_token(platform.settings, access_token)
    if principal is None or not await is_session_active(platform, principal):
        return None
    return principal


async def is_session_active(platform: Platform, user: Principal) -> bool:
    """Whether the session of a user's access token has not ended."""
    return user.session_id is not None and await tokens.is_active(platform.database, user.session_id)


async def sign_out(platform: Platform, user: Principal) -> None:
    """End the session that the user's access token belongs to."""
    if user.session_id is not None:
        async with platform.database.transaction() as session:
            await tokens.end_session(session, user.subject, user.session_id)


async def identify(platform: Platform, user_id: str) -> Identity:
    """The user's name and role. Raises Unauthenticated when the account is deleted."""
    async with platform.database.transaction() as session:
        user = await repository.user_by_id(session, user_id)
    if user is None:
        raise Unauthenticated("unauthenticated", "this account has been deleted")
    return Identity.model_validate(user, from_attributes=True)
