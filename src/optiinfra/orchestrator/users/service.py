"""Users of a customer: invited by an owner, added by accepting, removed by an owner."""

from datetime import timedelta

from optiinfra.api.common import now
from optiinfra.api.users import AcceptInvitation, Invite, Invited, Joined, User
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.accounts import passwords, sessions
from optiinfra.orchestrator.accounts.repository import add_user
from optiinfra.orchestrator.errors import Conflict, NotFound, Unauthenticated
from optiinfra.orchestrator.idempotency import KeyedRequest, remember_issued, replay
from optiinfra.orchestrator.inventory.repository import lock_customer
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.users import repository
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import notify_after_commit


async def invite(platform: Platform, customer_id: str, body: Invite, keyed: KeyedRequest | None) -> Invited:
    """Invite an address. Raises Conflict when a user of the customer has it.

    An account with another customer is not mentioned here: whoever accepts the invitation learns of it.
    """
    token = new_secret("invite")
    invitation = models.Invitation(
        id=new_id("user"),
        customer_id=customer_id,
        email=body.email.lower(),
        role=body.role,
        token_hash=secret_hash(token),
        expires_at=now() + timedelta(seconds=platform.settings.invitation_seconds),
    )
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        if await lock_customer(session, customer_id) is None:
            raise NotFound("customer")
        if await repository.is_member(session, customer_id, invitation.email):
            raise Conflict("already_a_user", "a user of yours has this e-mail address")
        user_id = await repository.put_invitation(session, invitation)
        await remember_issued(session, keyed, user_id=user_id)
    return Invited(
        user_id=user_id,
        email=invitation.email,
        role=body.role,
        invitation_token=token,
        expires_at=invitation.expires_at,
    )


async def accept(platform: Platform, body: AcceptInvitation) -> Joined:
    """Add the invited user.

    Raises Unauthenticated for a token that is unknown, used, replaced or expired, Invalid for a weak password, Conflict
    when the address has got an account meanwhile.
    """
    found = await platform.database.read(repository.INVITATION, token_hash=secret_hash(body.token))
    if not found:
        raise _refused()
    invitation = found[0]
    await passwords.check_new(body.password, invitation.email, invitation.company_name)
    password_hash = await passwords.hash_password(body.password)
    user = models.User(
        id=invitation.id,
        customer_id=invitation.customer_id,
        email=invitation.email,
        role=invitation.role,
        password_hash=password_hash,
    )
    async with platform.database.transaction() as session:
        locked = await lock_customer(session, invitation.customer_id)
        if locked is None or not await repository.take_invitation(session, invitation.id, secret_hash(body.token)):
            raise _refused()
        if not await add_user(session, user):
            raise Conflict("email_taken", "this e-mail address has an account already")
    return Joined(customer_id=user.customer_id, user_id=user.id, email=user.email, role=invitation.role)


async def listed(platform: Platform, customer_id: str, limit: int) -> list[User]:
    """The customer's users, and those who are invited, oldest first."""
    rows = await platform.database.read(repository.OF_CUSTOMER, customer_id=customer_id, limit=limit)
    return [User.model_validate(row, from_attributes=True) for row in rows]


async def remove(platform: Platform, customer_id: str, user_id: str) -> None:
    """Remove a user with all sessions, or withdraw an invitation.

    Raises NotFound unless the customer has this user, Conflict for the last owner.
    """
    async with platform.database.transaction() as session:
        # Locked, so that two owners cannot remove each other at once.
        if await lock_customer(session, customer_id) is None:
            raise NotFound("user")
        user = await repository.user_of(session, customer_id, user_id)
        if user is None:
            if not await repository.withdraw_invitation(session, customer_id, user_id):
                raise NotFound("user")
            return
        if user.role == "owner" and await repository.owners(session, customer_id) == 1:
            raise Conflict("last_owner", "the last owner cannot be removed: invite another one first")
        for session_id in await repository.session_ids(session, user_id):
            notify_after_commit(session, sessions.channel(session_id))
        await session.delete(user)  # the foreign key deletes the sessions


def _refused() -> Unauthenticated:
    return Unauthenticated("invitation_refused", "this invitation is unknown, used, replaced or expired")
