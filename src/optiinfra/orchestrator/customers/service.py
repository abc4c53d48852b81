"""Customers: reading, preferences, onboarding a cloud account."""

from optiinfra.api.customers import CloudTrust, Customer, Onboard, Preferences
from optiinfra.clouds import aws_trust
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


async def cloud_trust(platform: Platform, customer_id: str) -> CloudTrust:
    """The policies of the customer's role for the platform. Raises NotFound when there is no such customer."""
    found = await platform.database.read(repository.TRUST, customer_id=customer_id)
    if not found:
        raise NotFound("customer")
    (row,) = found
    regions = platform.prices.regions("aws").union(account["region"] for account in row.accounts)
    return CloudTrust(
        external_id=row.external_id,
        trust_policy=aws_trust.trust_policy(platform.settings.aws_principal_arn, row.external_id),
        permissions_policy=aws_trust.permissions_policy(regions),
    )


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
