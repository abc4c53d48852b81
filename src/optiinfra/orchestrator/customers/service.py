"""Customers: reading, onboarding a cloud account, leaving."""

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from optiinfra.api.customers import Customer, Onboard, Preferences
from optiinfra.domain.inventory import CloudAccountStatus
from optiinfra.domain.optimization import FINAL, OptimizationStatus
from optiinfra.kit.ids import new_id
from optiinfra.kit.problems import Problem, not_found
from optiinfra.orchestrator.background import under_way
from optiinfra.orchestrator.durable import delete_workflows
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models


async def get(platform: Platform, customer_id: str) -> Customer:
    """The customer; 404 when there is none."""
    async with platform.database.transaction() as session:
        row = await session.get(models.Customer, customer_id)
    if row is None:
        raise not_found("customer")
    return Customer.model_validate(row, from_attributes=True)


async def prefer(platform: Platform, customer_id: str, changes: dict[str, object]) -> Preferences:
    """Change some preferences, keep the others."""
    async with platform.database.transaction() as session:
        row = await session.get(models.Customer, customer_id, with_for_update=True)
        if row is None:
            raise not_found("customer")
        preferences = Preferences.model_validate(row.preferences | changes)
        row.preferences = preferences.model_dump(mode="json")
    return preferences


async def add_cloud_account(platform: Platform, customer_id: str, body: Onboard) -> None:
    """Note an account to be discovered, 404 without its customer.

    The same one again is only discovered anew; a look at it that began before counts no more.
    """
    account = {"provider": body.cloud_provider, "region": body.region, "role_arn": body.iam_role_arn}
    statement = insert(models.CloudAccount).values(
        id=new_id("acct"),
        customer_id=customer_id,
        account_id=body.account_id,
        external_id=body.external_id,
        status=CloudAccountStatus.DISCOVERING,
        **account,
    )
    statement = statement.on_conflict_do_update(
        index_elements=["customer_id", "provider", "region", "role_arn"],
        set_={
            "status": CloudAccountStatus.DISCOVERING,
            "error": None,
            "external_id": body.external_id,
            "as_of": func.clock_timestamp(),
        },
    )
    async with platform.database.transaction() as session:
        # The customer before the account, as who deletes it does: otherwise each could wait for the other.
        if await session.get(models.Customer, customer_id, with_for_update={"key_share": True}) is None:
            raise not_found("customer")
        await session.execute(statement)
        await record(session, customer_id, "customer_onboarded", "orchestrator", account)


async def remove(platform: Platform, customer_id: str) -> None:
    """Delete a customer everywhere; 409 while something of theirs is being changed, 404 when there is none.

    First the row that everything else hangs on, then the rest: what comes in meanwhile is refused, or taken back by
    whoever brought it. Where a crash or a store that is away keeps the rest from being deleted, the sweep finds the
    customer among those `Leaving`; calling this again deletes it as well.
    """
    with under_way(removal_of(customer_id)):
        gone = await _remove_row(platform, customer_id)
        await remove_rest(platform, customer_id)
    if not gone:
        raise not_found("customer")


async def remove_rest(platform: Platform, customer_id: str) -> None:
    """Delete what is kept of a customer whose row is gone: first the copies, then the workflows. Harmless to repeat."""
    with under_way(removal_of(customer_id)):
        await platform.telemetry.delete_customer(customer_id)
        await platform.memory.delete_customer(customer_id)
        await delete_workflows(customer_id)
        async with platform.database.transaction() as session:
            await session.execute(delete(models.Leaving).where(models.Leaving.customer_id == customer_id))


def removal_of(customer_id: str) -> str:
    """The name under which the end of a deletion is `background.under_way`."""
    return f"removal of {customer_id}"


async def _remove_row(platform: Platform, customer_id: str) -> bool:
    """Delete the customer's row and what hangs on it, and note that they are leaving; whether there was one."""
    table = models.Optimization
    # One that is to be undone is as good as running, though its undoing may not have begun.
    under_way = or_(
        table.status.not_in(FINAL),
        and_(table.status == OptimizationStatus.COMPLETED, table.rollback_reason.is_not(None)),
    )
    async with platform.database.transaction() as session:
        # In the order in which events are recorded: what they tell of before the customer, who numbers them.
        for locked in (table, models.Recommendation, models.Analysis, models.Deployment):
            await session.execute(select(locked.id).where(locked.customer_id == customer_id).with_for_update())
        await session.get(models.Customer, customer_id, with_for_update=True)
        mine = select(table.id).where(table.customer_id == customer_id, under_way)
        if (running := await session.scalar(mine.limit(1))) is not None:
            raise Problem(409, "optimization_running", f"{running} is changing your estate: roll it back or let it end")
        gone = await session.scalar(
            delete(models.Customer).where(models.Customer.id == customer_id).returning(models.Customer.id)
        )
        if gone is not None:
            session.add(models.Leaving(customer_id=customer_id))
    return gone is not None
