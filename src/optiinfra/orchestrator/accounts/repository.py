"""SQL of accounts."""

from sqlalchemy import select, update
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


async def lock_unchanged(session: AsyncSession, user: models.User) -> bool:
    """Protect a user from changes until the transaction ends. False when removed, or when the password has changed."""
    same = models.User.id == user.id, models.User.password_hash == user.password_hash
    return await session.scalar(select(models.User.id).where(*same).with_for_update(read=True)) is not None


async def replace_password(session: AsyncSession, user: models.User, password_hash: str) -> bool:
    """Replace a user's password. False when the user was removed, or the password has changed meanwhile."""
    same = models.User.id == user.id, models.User.password_hash == user.password_hash
    replaced = update(models.User).where(*same).values(password_hash=password_hash).returning(models.User.id)
    return await session.scalar(replaced) is not None


async def company_name(session: AsyncSession, customer_id: str) -> str:
    """The name of a customer, empty when it is deleted."""
    name = select(models.Customer.company_name).where(models.Customer.id == customer_id)
    return await session.scalar(name) or ""


async def add_customer(session: AsyncSession, customer: models.Customer, owner: models.User) -> bool:
    """Add a company and its first user. False when the address has an account already: roll the transaction back."""
    session.add(customer)
    await session.flush()  # before the user, who refers to it
    return await add_user(session, owner)


async def add_user(session: AsyncSession, user: models.User) -> bool:
    """Add a user. False, and nothing is added, when the address has an account already."""
    try:
        async with session.begin_nested():
            session.add(user)
    except IntegrityError as error:
        if is_unique_violation(error, "uq_users_email"):
            return False
        raise
    return True
