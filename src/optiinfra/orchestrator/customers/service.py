"""Customers: reading, preferences, onboarding a cloud account."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.customers import CloudTrust, Customer, Onboard, Preferences, Started
from optiinfra.clouds import aws_trust
from optiinfra.clouds.protocol import CloudError
from optiinfra.orchestrator.customers import repository
from optiinfra.orchestrator.errors import Conflict, NotFound, TooManyRequests
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.idempotency import KeyedRequest, remember, replay
from optiinfra.orchestrator.inventory.clouds import enter
from optiinfra.orchestrator.inventory.repository import connect, holder, lock_customer
from optiinfra.orchestrator.inventory.service import ACCOUNT_TAKEN
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models

_ENTER_SECONDS = 5.0
_RETRY_SECONDS = 5
"""How long an onboarding waits for the cloud."""


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


async def add_cloud_account(
    platform: Platform, customer_id: str, body: Onboard, keyed: KeyedRequest | None = None
) -> str:
    """Store an account to be discovered, our id of it; a known one is discovered again.

    Raises NotFound without its customer, and Conflict for an account that another customer has connected. Only who has
    entered an account has connected it: naming somebody's role reserves nothing. If the cloud does not answer now, the
    discovery decides. Raises TooManyRequests while as many accounts as allowed are in discovery.
    """
    proven = await _is_entered(platform, customer_id, body, keyed)
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        # The customer before the account, as in a deletion: prevents a deadlock with transactions that record events.
        if await lock_customer(session, customer_id) is None:
            raise NotFound("customer")
        await _require_room(session, platform, customer_id)
        account_id = await repository.upsert_cloud_account(session, customer_id, body)
        if proven and not await connect(session, customer_id, body.cloud_provider, body.account_id):
            raise _taken()
        payload = {"provider": body.cloud_provider, "region": body.region, "role_arn": body.iam_role_arn}
        await record(session, customer_id, "customer_onboarded", "orchestrator", payload)
        await remember(session, keyed, Started())
    return account_id


async def _is_entered(platform: Platform, customer_id: str, body: Onboard, keyed: KeyedRequest | None) -> bool:
    """Whether the customer's role leads into the account. Raises as `add_cloud_account`, before it asks the cloud."""
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        customer = await session.get(models.Customer, customer_id)
        if customer is None:
            raise NotFound("customer")
        await _require_room(session, platform, customer_id)
        if await holder(session, body.cloud_provider, body.account_id) not in (None, customer_id):
            raise _taken()
    try:
        async with asyncio.timeout(_ENTER_SECONDS):
            await enter(platform.settings, body.region, body.iam_role_arn, customer.external_id, body.account_id)
    except (CloudError, TimeoutError):
        return False  # the discovery says why
    return True


async def _require_room(session: AsyncSession, platform: Platform, customer_id: str) -> None:
    most = platform.settings.quota_onboardings
    if await repository.onboardings(session, customer_id) >= most:
        raise TooManyRequests(_RETRY_SECONDS, f"at most {most} accounts of a customer may be in discovery")


def _taken() -> Conflict:
    return Conflict("account_taken", ACCOUNT_TAKEN)
