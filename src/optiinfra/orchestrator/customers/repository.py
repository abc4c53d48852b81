"""SQL of customers, their cloud accounts and their deletion."""

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.customers import Customer, Onboard
from optiinfra.domain.inventory import CloudAccountStatus
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.events.service import channel as events_channel
from optiinfra.orchestrator.optimizations.conflicts import unfinished
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import notify_after_commit
from optiinfra.stores.postgres.reads import Query, columns, json_list

CUSTOMER = Query(select(*columns(models.Customer, Customer)).where(models.Customer.id == bindparam("customer_id")))
"""One customer, as the API shows it."""

_ACCOUNTS = select(models.CloudAccount.region).where(models.CloudAccount.customer_id == models.Customer.id).distinct()
TRUST = Query(
    select(models.Customer.external_id, json_list(_ACCOUNTS.correlate(models.Customer)).label("accounts")).where(
        models.Customer.id == bindparam("customer_id")
    )
)
"""A customer's external id, and the region of each account."""


async def upsert_cloud_account(session: AsyncSession, customer_id: str, body: Onboard) -> str:
    """Store an account as one to discover; our id of it.

    A known one is discovered again, and older listings of it are dropped.
    """
    statement = insert(models.CloudAccount).values(
        id=new_id("acct"),
        customer_id=customer_id,
        provider=body.cloud_provider,
        region=body.region,
        role_arn=body.iam_role_arn,
        account_id=body.account_id,
        status=CloudAccountStatus.DISCOVERING,
    )
    statement = statement.on_conflict_do_update(
        index_elements=["customer_id", "provider", "region", "role_arn"],
        set_={
            "status": CloudAccountStatus.DISCOVERING,
            "error": None,
            "as_of": func.clock_timestamp(),
        },
    )
    return (await session.execute(statement.returning(models.CloudAccount.id))).scalar_one()


async def onboardings(session: AsyncSession, customer_id: str) -> int:
    """How many of the customer's accounts have not been discovered yet."""
    table = models.CloudAccount
    waiting = table.customer_id == customer_id, table.status == CloudAccountStatus.DISCOVERING
    return await session.scalar(select(func.count()).where(*waiting)) or 0


async def lock_for_deletion(session: AsyncSession, customer_id: str) -> None:
    """Lock the customer's rows in the order that prevents a deadlock with transactions that record events.

    An event locks the row that it is about before the customer's row, which numbers the events.
    """
    for table in (models.Optimization, models.Recommendation, models.Analysis, models.Deployment):
        await session.execute(select(table.id).where(table.customer_id == customer_id).with_for_update())
    await session.get(models.Customer, customer_id, with_for_update=True)


async def unfinished_optimization(session: AsyncSession, customer_id: str) -> str | None:
    """The id of an optimization that runs or will be rolled back; None when there is none."""
    table = models.Optimization
    return await session.scalar(select(table.id).where(table.customer_id == customer_id, unfinished()).limit(1))


async def delete_row(session: AsyncSession, customer_id: str) -> str | None:
    """Delete the customer's row, and record that its deletion is unfinished.

    Returns the customer's external id; None if there is no such customer. Foreign keys delete everything that refers
    to it.
    """
    table = models.Customer
    external_id = await session.scalar(delete(table).where(table.id == customer_id).returning(table.external_id))
    if external_id is not None:
        session.add(models.CustomerDeletion(customer_id=customer_id))
        notify_after_commit(session, events_channel(customer_id))  # closes the streams, whose sessions are deleted
    return external_id


async def end_deletion(session: AsyncSession, customer_id: str) -> None:
    """Record that the deletion is finished."""
    table = models.CustomerDeletion
    await session.execute(delete(table).where(table.customer_id == customer_id))
