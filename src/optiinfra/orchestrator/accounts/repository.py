"""SQL of sign-up and sign-in."""

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.violations import is_unique_violation


async def user_by_email(session: AsyncSession, email: str) -> models.User | None:
    """The user with this address, in any case."""
    return (await session.scalars(select(models.User).where(models.User.email == email.lower()))).one_or_none()


async def user_by_id(session: AsyncSession, user_id: str) -> models.User | None:
    """The user with this id."""
    return await session.get(models.User, user_id)


async def add_customer(session: AsyncSession, customer: models.Customer, owner: models.User) -> bool:
    """Add a company and its first user. False, and nothing is added, when the address has an account already."""
    try:
        async with session.begin_nested():
            session.add(customer)
            await session.flush()  # before the user, who refers to it
            session.add(owner)
    except IntegrityError as error:
        if is_unique_violation(error, "uq_users_email"):
            return False
        raise
    return True
