"""SQL of the inventory: cloud accounts, instances and deployments of one customer."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import BindParameter, String, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.api.customers import DiscoveredDeployment
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.inventory.idle import IdleChanges, KnownInstance
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.reads import Query, json_list


def _estate() -> Query:
    customer: BindParameter[str] = bindparam("customer_id")
    account, instance, deployment = models.CloudAccount, models.Instance, models.Deployment
    accounts = select(account.status, account.error).where(account.customer_id == customer)
    instances = (
        select(instance.instance_id, instance.provider, instance.region, instance.instance_type, instance.lifecycle)
        .add_columns(instance.monthly_cost, instance.state, account.account_id, instance.idle_since)
        .join(account, account.id == instance.cloud_account_id)
        .where(instance.customer_id == customer)
    )
    present = deployment.customer_id == customer, deployment.gone_at.is_(None)
    deployments = select(deployment.id, deployment.described).where(*present)
    return Query(
        select(
            json_list(accounts.order_by(account.created_at, account.id)).label("accounts"),
            json_list(instances.order_by(instance.instance_id)).label("instances"),
            json_list(deployments.order_by(deployment.name)).label("deployments"),
        )
    )


ESTATE = _estate()
"""The customer's accounts, oldest first, their instances by id, and the deployments that are still reported, by name.

An instance has the cloud's number of its account.
"""


async def lock_customer(session: AsyncSession, customer_id: str) -> models.Customer | None:
    """The customer's row, locked against changes and deletion until the transaction ends; None when it is deleted."""
    return await session.get(models.Customer, customer_id, with_for_update={"key_share": True})


async def accounts(session: AsyncSession, customer_id: str) -> list[models.CloudAccount]:
    """The customer's cloud accounts, oldest first."""
    table = models.CloudAccount
    query = select(table).where(table.customer_id == customer_id).order_by(table.created_at, table.id)
    return list(await session.scalars(query))


async def holder(session: AsyncSession, provider: str, account_id: str | None) -> str | None:
    """The customer that has connected this account, by the cloud's own number; None if nobody has."""
    table = models.ConnectedAccount
    query = select(table.customer_id).where(table.provider == provider, table.account_id == account_id)
    return await session.scalar(query)


async def connect(session: AsyncSession, customer_id: str, provider: str, account_id: str | None) -> bool:
    """Make the account this customer's, whose role led to it. False if it is another customer's.

    Of concurrent calls for one account the first to commit decides.
    """
    if await holder(session, provider, account_id) is None:
        row = {"provider": provider, "account_id": account_id, "customer_id": customer_id}
        await session.execute(insert(models.ConnectedAccount).values(row).on_conflict_do_nothing())
    return await holder(session, provider, account_id) == customer_id


async def connected_account(session: AsyncSession, customer_id: str, account_id: str) -> models.CloudAccount | None:
    """One of the customer's own accounts, by our id; None if it is not connected, or another customer's."""
    account = await session.get(models.CloudAccount, account_id)
    if account is None or account.customer_id != customer_id:
        return None
    return account if await holder(session, account.provider, account.account_id) == customer_id else None


async def accounts_of_instances(
    session: AsyncSession, customer_id: str, instance_ids: Collection[str]
) -> dict[str, models.CloudAccount]:
    """The account of each instance, by instance id; unknown instances are left out."""
    instance, account = models.Instance, models.CloudAccount
    query = (
        select(instance.instance_id, account)
        .join(account, account.id == instance.cloud_account_id)
        .where(instance.customer_id == customer_id, instance.instance_id.in_(instance_ids))
    )
    return {found[0]: found[1] for found in await session.execute(query)}


async def store_instances(session: AsyncSession, account: models.CloudAccount, rows: list[dict[str, Any]]) -> None:
    """Replace the stored instances of an account by its newest listing; `rows` are columns by name."""
    table = models.Instance
    missing = table.cloud_account_id == account.id, table.instance_id.not_in([row["instance_id"] for row in rows])
    await session.execute(delete(table).where(*missing))
    for row in rows:
        columns = row | {"cloud_account_id": account.id}
        statement = insert(table).values(customer_id=account.customer_id, **columns)
        await session.execute(
            statement.on_conflict_do_update(index_elements=["customer_id", "instance_id"], set_=columns)
        )


async def present_deployments(session: AsyncSession, customer_id: str) -> list[models.Deployment]:
    """The deployments that the customer's runtime still reports, by name."""
    table = models.Deployment
    present = table.customer_id == customer_id, table.gone_at.is_(None)
    return list(await session.scalars(select(table).where(*present).order_by(table.name)))


async def store_deployments(
    session: AsyncSession, customer_id: str, deployments: list[DiscoveredDeployment]
) -> dict[str, str]:
    """Store what a runtime reports, and mark the customer's other deployments as gone. Their ids by name."""
    table = models.Deployment
    names = [deployment.name for deployment in deployments]
    missing = table.customer_id == customer_id, table.name.not_in(names), table.gone_at.is_(None)
    await session.execute(update(table).where(*missing).values(gone_at=now()))
    rows = {
        deployment.name: {
            "id": new_id("dep"),
            "customer_id": customer_id,
            "name": deployment.name,
            "described": deployment.model_dump(mode="json"),
            "seen_at": now(),
        }
        for deployment in deployments
    }
    if not rows:
        return {}
    statement = insert(table)
    seen = {"described": statement.excluded.described, "seen_at": statement.excluded.seen_at, "gone_at": None}
    statement = statement.on_conflict_do_update(index_elements=["customer_id", "name"], set_=seen)
    stored = await session.execute(statement.returning(table.name, table.id), list(rows.values()))
    return {row.name: row.id for row in stored}


async def count_deployments(session: AsyncSession, customer_id: str) -> int:
    """How many deployments the customer has and had."""
    query = select(func.count()).where(models.Deployment.customer_id == customer_id)
    return (await session.execute(query)).scalar_one()


async def known_instances(session: AsyncSession, customer_id: str, instance_ids: Collection[str]) -> set[str]:
    """Those of the instances that the customer's accounts hold, as last listed."""
    table = models.Instance
    asked = table.instance_id == func.any(bindparam("instance_ids", list(instance_ids), type_=ARRAY(String)))
    return set(await session.scalars(select(table.instance_id).where(table.customer_id == customer_id, asked)))


async def instances_to_compare(session: AsyncSession, customer_id: str) -> list[KnownInstance]:
    """The instances whose idleness may change: those that run, and those that are stored as idle."""
    table = models.Instance
    query = select(table.instance_id, table.state, table.idle_since.is_not(None)).where(
        table.customer_id == customer_id, or_(table.state == "running", table.idle_since.is_not(None))
    )
    return [KnownInstance(*row) for row in await session.execute(query)]


async def store_idle_changes(session: AsyncSession, customer_id: str, changes: IdleChanges) -> None:
    """Start or clear `idle_since` of the instances that changed."""
    table = models.Instance
    for ids, since in ((changes.began, now()), (changes.ended, None)):
        if ids:
            mine = table.customer_id == customer_id, table.instance_id.in_(ids)
            await session.execute(update(table).where(*mine).values(idle_since=since))


async def runtime_connected(session: AsyncSession, customer_id: str) -> bool:
    """Whether a runtime of the customer has ever connected."""
    query = select(models.Runtime.id).where(models.Runtime.customer_id == customer_id).limit(1)
    return await session.scalar(query) is not None
