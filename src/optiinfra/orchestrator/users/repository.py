"""SQL of users and invitations. Changes lock the customer's row before any of theirs, as its deletion does."""

from sqlalchemy import bindparam, delete, func, literal, null, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.reads import Query

_USER, _INVITATION, _SESSION = models.User, models.Invitation, models.UserSession
_ACTIVE = select(
    _USER.id.label("user_id"),
    _USER.email,
    _USER.role,
    literal("active").label("status"),
    _USER.created_at,
    null().label("expires_at"),
).where(_USER.customer_id == bindparam("customer_id"))
_INVITED = select(
    _INVITATION.id,
    _INVITATION.email,
    _INVITATION.role,
    literal("invited"),
    _INVITATION.created_at,
    _INVITATION.expires_at,
).where(_INVITATION.customer_id == bindparam("customer_id"), _INVITATION.expires_at > func.clock_timestamp())
_EVERYONE = union_all(_ACTIVE, _INVITED).subquery()
OF_CUSTOMER = Query(
    select(*_EVERYONE.c).order_by(_EVERYONE.c.created_at, _EVERYONE.c.user_id).limit(bindparam("limit"))
)
"""The active and invited users of a customer, oldest first."""
INVITATION = Query(
    select(_INVITATION.id, _INVITATION.customer_id, _INVITATION.email, _INVITATION.role, models.Customer.company_name)
    .join(models.Customer, models.Customer.id == _INVITATION.customer_id)
    .where(_INVITATION.token_hash == bindparam("token_hash"), _INVITATION.expires_at > func.clock_timestamp())
)
"""A valid invitation by the hash of its token."""


async def is_member(session: AsyncSession, customer_id: str, email: str) -> bool:
    """Whether a user of the customer has this address."""
    found = select(_USER.id).where(_USER.customer_id == customer_id, _USER.email == email)
    return await session.scalar(found) is not None


async def put_invitation(session: AsyncSession, invitation: models.Invitation) -> str:
    """Store an invitation, or replace token, role and end of the one that the address has. Returns its id."""
    values = {name: getattr(invitation, name) for name in ("role", "token_hash", "expires_at")}
    statement = insert(_INVITATION).values(
        id=invitation.id, customer_id=invitation.customer_id, email=invitation.email, **values
    )
    statement = statement.on_conflict_do_update(index_elements=["customer_id", "email"], set_=values)
    return (await session.execute(statement.returning(_INVITATION.id))).scalar_one()


async def take_invitation(session: AsyncSession, invitation_id: str, token_hash: str) -> bool:
    """Delete an invitation, which can be accepted once. False when it was accepted, replaced or withdrawn meanwhile."""
    same = _INVITATION.id == invitation_id, _INVITATION.token_hash == token_hash
    taken = delete(_INVITATION).where(*same).returning(_INVITATION.id)
    return await session.scalar(taken) is not None


async def withdraw_invitation(session: AsyncSession, customer_id: str, invitation_id: str) -> bool:
    """Delete an invitation. False when the customer has no such invitation."""
    mine = _INVITATION.id == invitation_id, _INVITATION.customer_id == customer_id
    return await session.scalar(delete(_INVITATION).where(*mine).returning(_INVITATION.id)) is not None


async def user_of(session: AsyncSession, customer_id: str, user_id: str) -> models.User | None:
    """A user of the customer, locked: no session begins meanwhile."""
    mine = _USER.id == user_id, _USER.customer_id == customer_id
    return await session.scalar(select(_USER).where(*mine).with_for_update())


async def owners(session: AsyncSession, customer_id: str) -> int:
    """How many owners the customer has."""
    counted = select(func.count()).where(_USER.customer_id == customer_id, _USER.role == "owner")
    return await session.scalar(counted) or 0


async def session_ids(session: AsyncSession, user_id: str) -> list[str]:
    """The ids of all sessions of a user."""
    return list(await session.scalars(select(_SESSION.id).where(_SESSION.user_id == user_id)))
