"""Customers: reading, preferences, onboarding a cloud account."""

from optiinfra.api.customers import Customer, Onboard, Preferences
from optiinfra.orchestrator.customers import repository
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.inventory.repository import lock_customer
from optiinfra.orchestrator.platform import Platform


async def get(platform: Platform, customer_id: str) -> Customer:
    """The customer. Raises NotFound when there is none."""
    found = await platform.database.read(repository.CUSTOMER, customer_id=customer_id)
    if not found:
        raise NotFound("customer")
    return Customer.model_validate(found[0], from_attributes=True)


async def update_preferences(platform: Platform, customer_id: str, changes: dict[str, object]) -> Preferences:
    """Change some preferences and keep the others. Raises NotFound when there is no such customer."""
    async with platform.database.transaction() as session:
        row = await lock_customer(session, customer_id)
        if row is None:
            raise NotFound("customer")
        preferences = Preferences.model_validate(row.preferences | changes)
        row.preferences = preferences.model_dump(mode="json")
    return preferences


async def add_cloud_account(platform: Platform, customer_id: str, body: Onboard) -> None:
    """Store an account to be discovered; a known one is discovered again. Raises NotFound without its customer."""
    async with platform.database.transaction() as session:
        # The customer before the account, as in a deletion: prevents a deadlock with transactions that record events.
        if await lock_customer(session, customer_id) is None:
            raise NotFound("customer")
        await repository.upsert_cloud_account(session, customer_id, body)
        payload = {"provider": body.cloud_provider, "region": body.region, "role_arn": body.iam_role_arn}
        await record(session, customer_id, "customer_onboarded", "orchestrator", payload)
