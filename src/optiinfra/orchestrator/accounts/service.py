"""Sign-up, sign-in, refresh, password changes and sign-out."""

from collections.abc import Callable

from optiinfra.api.accounts import Identity, Login, PasswordChange, Signup, Tokens
from optiinfra.api.customers import Preferences
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.accounts import passwords, repository, sessions, tokens
from optiinfra.orchestrator.errors import Conflict, NotFound, Unauthenticated
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models


async def sign_up(platform: Platform, body: Signup) -> Principal:
    """Create a customer and its owner, who is returned.

    Raises Invalid for a weak password, Conflict when the address has an account already.
    """
    await passwords.check_new(body.password, body.email, body.company_name)
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
        if not await repository.add_customer(session, customer, owner):
            raise Conflict("email_taken", "this e-mail address has an account already: sign in instead")
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
        raise _wrong_credentials()
    async with platform.database.transaction() as session:
        if not await repository.lock_unchanged(session, user):
            raise _wrong_credentials()
        begun = await sessions.begin(session, platform.settings, user.id)
        return await tokens.issue(session, platform.settings, user, begun)


async def refresh(platform: Platform, refresh_token: str, attribute: Callable[[Principal], None]) -> Tokens:
    """New tokens for a refresh token, which can be used once. Raises Unauthenticated for any other.

    `attribute` is told whose token it is, also when it has been used or has expired.
    """
    async with platform.database.transaction() as session:
        if (owner := await tokens.owner_of(session, refresh_token)) is not None:
            attribute(owner)
        renewed = await tokens.rotate(session, platform.settings, refresh_token)
    if renewed is None:
        raise Unauthenticated(
            "refresh_refused", "this refresh token is unknown, used, revoked or expired: sign in again"
        )
    return renewed


async def authenticate(platform: Platform, access_token: str) -> Principal | None:
    """The user of a valid access token whose session has not ended; None for any other text."""
    principal = tokens.read_access_token(platform.settings, access_token)
    if principal is None or not await is_session_active(platform, principal):
        return None
    return principal


async def is_session_active(platform: Platform, user: Principal) -> bool:
    """Whether the session of a user's access token has not ended."""
    return user.session_id is not None and await sessions.is_active(platform.database, user.session_id)


async def sign_out(platform: Platform, user: Principal) -> None:
    """End the session that the user's access token belongs to."""
    async with platform.database.transaction() as session:
        await sessions.end(session, models.UserSession.id == user.session_id)


async def end_session(platform: Platform, user: Principal, session_id: str) -> None:
    """End one of the user's sessions. Raises NotFound unless it is active."""
    table = models.UserSession
    async with platform.database.transaction() as session:
        if not await sessions.end(session, table.id == session_id, table.user_id == user.subject):
            raise NotFound("session")


async def change_password(platform: Platform, user: Principal, body: PasswordChange) -> None:
    """Replace the user's password, and end all of the user's other sessions.

    Raises Unauthenticated for a wrong current password, Invalid for a weak new one.
    """
    async with platform.database.transaction() as session:
        found = await repository.user_by_id(session, user.subject)
        company = await repository.company_name(session, user.customer_id or "")
    right = await passwords.verify(found.password_hash if found else None, body.current_password)
    if found is None or not right:
        raise _wrong_credentials()
    await passwords.check_new(body.new_password, found.email, company)
    password_hash = await passwords.hash_password(body.new_password)
    async with platform.database.transaction() as session:
        # The user first, as at a sign-in: one that has verified the old password begins no session afterwards.
        if not await repository.replace_password(session, found, password_hash):
            raise _wrong_credentials()
        if await sessions.lock(session, user.session_id or "") is None:
            raise Unauthenticated("unauthenticated", "this session has ended")
        table = models.UserSession
        await sessions.end(session, table.user_id == user.subject, table.id != user.session_id)


async def identify(platform: Platform, user_id: str) -> Identity:
    """The user's name and role. Raises Unauthenticated when the account is deleted."""
    async with platform.database.transaction() as session:
        user = await repository.user_by_id(session, user_id)
    if user is None:
        raise Unauthenticated("unauthenticated", "this account has been deleted")
    return Identity.model_validate(user, from_attributes=True)


def _wrong_credentials() -> Unauthenticated:
    return Unauthenticated("wrong_credentials", "wrong e-mail address or password")
