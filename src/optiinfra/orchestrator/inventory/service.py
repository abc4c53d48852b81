"""A customer's estate: instances from their clouds, deployments from their runtime, costs from the price book."""

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.api.customers import Deployment, DiscoveredDeployment, Infrastructure, Instance
from optiinfra.api.runtimes import MOST_DEPLOYMENTS
from optiinfra.clouds.price_book import UnknownPriceError
from optiinfra.clouds.protocol import Cloud, CloudError, CloudInstance
from optiinfra.domain.hardware import INSTANCE_TYPES
from optiinfra.domain.inventory import CloudAccountStatus, inventory_status
from optiinfra.domain.savings import monthly, total
from optiinfra.kit.retries import DeadlineError, retry_until_deadline
from optiinfra.orchestrator.background import in_progress
from optiinfra.orchestrator.errors import Conflict, NotFound
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.inventory import repository
from optiinfra.orchestrator.inventory.clouds import cloud_of
from optiinfra.orchestrator.inventory.idle import idle_changes
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.telemetry import service as telemetry
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.postgres.reads import Row

log = structlog.get_logger(__name__)

ACCOUNT_TAKEN = "another customer has connected this account"


class AccountTaken(CloudError):  # noqa: N818  named after the condition
    """The account is another customer's."""


_Listing = tuple[list[CloudInstance], dict[str, float]]
"""An account's instances, and the spot quotes of the types that run on spot, dollars an hour."""

_DISCOVERIES = asyncio.Semaphore(8)
"""Concurrent discoveries: each keeps a worker thread busy for as long as its cloud does not answer."""

_INITIAL_COSTS_SECONDS = 600.0
"""How long to retry storing an estate's initial costs."""

ESTATE = ""
"""Resource id under which estate-wide metrics are stored."""


async def account_of(session: AsyncSession, customer_id: str, instance_ids: Collection[str]) -> models.CloudAccount:
    """The one cloud account that holds these instances.

    Raises Conflict when an instance is in no listing of the customer's accounts, or when several accounts hold them.
    """
    found = await repository.accounts_of_instances(session, customer_id, instance_ids)
    if unknown := sorted(set(instance_ids) - found.keys()):
        raise Conflict("instances_unknown", f"no connected cloud account has {', '.join(unknown)}")
    holders = {account.id: account for account in found.values()}
    if not holders:
        raise Conflict("instances_unknown", "no instance given, so the cloud account cannot be determined")
    if len(holders) > 1:
        places = "; ".join(
            f"{account.provider} {account.account_id or account.id} {account.region} has "
            + ", ".join(sorted(instance for instance, holder in found.items() if holder.id == account.id))
            for account in sorted(holders.values(), key=lambda account: account.id)
        )
        raise Conflict("instances_in_several_accounts", f"the instances are in several cloud accounts: {places}")
    (account,) = holders.values()
    return account


async def describe(database: Database, customer_id: str) -> Infrastructure:
    """All that is stored of the customer's estate; asks no cloud."""
    (row,) = await database.read(repository.ESTATE, customer_id=customer_id)
    return _infrastructure(row)


async def describe_in(session: AsyncSession, customer_id: str) -> Infrastructure:
    """Like `describe`, as the session's transaction sees it."""
    stored = await session.execute(repository.ESTATE.statement, {"customer_id": customer_id})
    return _infrastructure(stored.one())


async def refresh(
    platform: Platform, customer_id: str, required_accounts: Collection[str] | None = None
) -> Infrastructure:
    """List every cloud account, price what runs, store costs, and describe the result.

    An account that cannot be listed shows that in its status. Raises CloudError for one of the required accounts, by
    their ids; None requires all. Raises NoResultFound when the customer is deleted.
    """
    infrastructure = await _list_accounts(platform, customer_id, required_accounts)
    await telemetry.append(platform, customer_id, _costs(customer_id, infrastructure))
    return infrastructure


async def discover(
    platform: Platform, customer_id: str, account_id: str | None = None, *, retry_seconds: float = 1.0
) -> None:
    """List one account after onboarding, by our id, or all. One that cannot be listed is logged, and shows that."""
    try:
        with in_progress(discovery_of(customer_id)):
            async with _DISCOVERIES:
                infrastructure = await _list_accounts(platform, customer_id, only=account_id)
        costs, once = _costs(customer_id, infrastructure), f"{customer_id}:first costs:{now().isoformat()}"
        # The accounts count as discovered now, so no later discovery would store their initial costs.
        await retry_until_deadline(
            lambda: telemetry.append(platform, customer_id, costs, token=once),
            "ClickHouse",
            _INITIAL_COSTS_SECONDS,
            interval=retry_seconds,
        )
    except CloudError as error:
        log.warning("discovery failed", customer_id=customer_id, error=str(error))
    except NoResultFound:
        log.info("discovery stopped, customer deleted", customer_id=customer_id)
    except DeadlineError as error:
        log.warning("initial costs not stored", customer_id=customer_id, error=str(error))


def discovery_of(customer_id: str) -> str:
    """The name of a discovery in `background.in_progress`."""
    return f"discovery of {customer_id}"


async def spot_quotes(platform: Platform, customer_id: str, infrastructure: Infrastructure) -> dict[str, float]:
    """The clouds' spot quotes of the instance types in use, dollars an hour by `region/instance_type`."""
    async with platform.database.transaction() as session:
        clouds = await repository.accounts(session, customer_id)
    quotes: dict[str, float] = {}
    for account in clouds:
        cloud = await cloud_of(platform.settings, account)
        types = {
            instance.instance_type
            for instance in infrastructure.instances
            if (instance.provider, instance.region) == (account.provider, account.region)
        }
        quotes |= {f"{account.region}/{kind}": quote for kind, quote in (await _quotes(cloud, types)).items()}
    return quotes


async def store_deployments(
    session: AsyncSession, customer_id: str, deployments: list[DiscoveredDeployment]
) -> tuple[dict[str, str], list[str]]:
    """Store what the runtime reports; a deployment it no longer reports is marked as gone, and its history is kept.

    Returns our id of each, by name, and the reported instances that no listing of the customer's accounts has: a
    replica on one of them hosts nothing of the customer's. Raises NotFound when the customer is deleted, Conflict when
    there are too many deployments.
    """
    ids = await repository.store_deployments(session, customer_id, deployments)
    # After the deployments, as in a customer deletion: prevents a deadlock with transactions that record events.
    if await repository.lock_customer(session, customer_id) is None:
        raise NotFound("customer")
    if (count := await repository.count_deployments(session, customer_id)) > MOST_DEPLOYMENTS:
        limit = f"there would be {count:,} deployments, those that are gone included; the limit is {MOST_DEPLOYMENTS:,}"
        raise Conflict("too_many_deployments", limit)
    await _update_idle(session, customer_id)
    reported = {replica.instance_id for deployment in deployments for replica in deployment.replicas}
    unknown = sorted(reported - await repository.known_instances(session, customer_id, reported))
    if unknown:
        log.warning("runtime reports unknown instances", customer_id=customer_id, instances=unknown[:20])
    return ids, unknown


async def _update_idle(session: AsyncSession, customer_id: str) -> None:
    """Bring `idle_since` up to date. The caller holds the lock on the customer's row.

    Until a runtime has connected, it is unknown what an instance hosts, so none counts as idle.
    """
    hosting: set[str] = set()
    for row in await repository.present_deployments(session, customer_id):
        replicas = DiscoveredDeployment.model_validate(row.described).replicas
        hosting |= {replica.instance_id for replica in replicas if replica.state != "dead"}
    if await repository.runtime_connected(session, customer_id):
        changes = idle_changes(await repository.instances_to_compare(session, customer_id), hosting)
        await repository.store_idle_changes(session, customer_id, changes)


async def _list_accounts(
    platform: Platform,
    customer_id: str,
    required_accounts: Collection[str] | None = None,
    *,
    only: str | None = None,
) -> Infrastructure:
    """List every cloud account, or only one, and store the result. No transaction is open during the listing.

    Of concurrent listings the one that began last counts, whichever ends last. Raises CloudError when a required
    account could not be listed, after the others are stored.
    """
    async with platform.database.transaction() as session:
        began: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
        clouds = [each for each in await repository.accounts(session, customer_id) if only in (None, each.id)]
    listings = await asyncio.gather(*(_list(platform, account) for account in clouds), return_exceptions=True)
    for listing in listings:
        if isinstance(listing, BaseException) and not isinstance(listing, CloudError):
            raise listing  # a defect, not an account that cannot be listed
    listed = {account.id: listing for account, listing in zip(clouds, listings, strict=True)}
    async with platform.database.transaction() as session:
        # The customer before the accounts, as in a deletion: prevents a deadlock with transactions that record events.
        await session.get_one(models.Customer, customer_id, with_for_update={"key_share": True})
        newest = [
            each
            for each in await repository.accounts(session, customer_id)
            if each.id in listed and each.as_of <= began
        ]
        undiscovered = [account for account in newest if account.status == CloudAccountStatus.DISCOVERING]
        # In this order, so that two customers with the same accounts wait for each other, and not in a circle.
        for account in sorted(newest, key=lambda each: (each.provider, each.account_id or "")):
            account.as_of = began
            if not isinstance(listed[account.id], BaseException) and not await repository.connect(
                session, customer_id, account.provider, account.account_id
            ):
                listed[account.id] = AccountTaken(ACCOUNT_TAKEN)
            await _store(session, platform, account, listed[account.id])
        await _update_idle(session, customer_id)
        await session.flush()
        infrastructure = await describe_in(session, customer_id)
        if any(account.status == CloudAccountStatus.DISCOVERED for account in undiscovered):
            payload = {"instances": len(infrastructure.instances), "deployments": len(infrastructure.vllm_deployments)}
            await record(session, customer_id, "infrastructure_discovered", "orchestrator", payload)
    for account in newest:
        required = required_accounts is None or account.id in required_accounts
        if required and isinstance(error := listed[account.id], BaseException):
            raise error
    return infrastructure


async def _list(platform: Platform, account: models.CloudAccount) -> _Listing:
    """The account's instances, and the quotes of their types on spot."""
    cloud = await cloud_of(platform.settings, account)
    instances = await cloud.instances()
    spot = {instance.instance_type for instance in instances if instance.lifecycle == "spot"}
    return instances, await _quotes(cloud, spot)


async def _quotes(cloud: Cloud, instance_types: set[str]) -> dict[str, float]:
    wanted = sorted(instance_types)
    quotes = await asyncio.gather(*(cloud.spot_quote(instance_type) for instance_type in wanted))
    return {kind: quote for kind, quote in zip(wanted, quotes, strict=True) if quote is not None}


async def _store(
    session: AsyncSession, platform: Platform, account: models.CloudAccount, listing: _Listing | BaseException
) -> None:
    if isinstance(listing, BaseException):
        account.status, account.error = CloudAccountStatus.FAILED, str(listing)
        if isinstance(listing, AccountTaken):
            await repository.store_instances(session, account, [])
    else:
        account.status, account.error = CloudAccountStatus.DISCOVERED, None
        await _store_instances(session, platform, account, *listing)


async def _store_instances(
    session: AsyncSession,
    platform: Platform,
    account: models.CloudAccount,
    listing: list[CloudInstance],
    quotes: dict[str, float],
) -> None:
    rows = [
        {
            "instance_id": seen.instance_id,
            "provider": seen.provider,
            "region": seen.region,
            "instance_type": seen.instance_type,
            "lifecycle": seen.lifecycle,
            "state": seen.state,
            "monthly_cost": _monthly_cost(platform, seen, quotes.get(seen.instance_type)),
            "seen_at": account.as_of,
        }
        for seen in listing
    ]
    await repository.store_instances(session, account, rows)


def _monthly_cost(platform: Platform, seen: CloudInstance, quoted: float | None) -> float | None:
    """Dollars a month: 0 unless it runs, None if its price is unknown."""
    if seen.state != "running":
        return 0.0
    try:
        price = platform.prices.hourly(seen.provider, seen.region, seen.instance_type, seen.lifecycle, quoted)
        return round(monthly(price), 2)
    except UnknownPriceError as error:
        # Shown, but without a cost: a guess would end up in the savings.
        log.warning("instance price unknown", instance_id=seen.instance_id, error=str(error))
        return None


def _costs(customer_id: str, infrastructure: Infrastructure) -> telemetry.Samples:
    """The present monthly cost of the estate and of each deployment."""
    costs = {ESTATE: total(instance.monthly_cost for instance in infrastructure.instances)}
    for deployment in infrastructure.vllm_deployments:
        costs[deployment.deployment_id] = total(
            instance.monthly_cost for instance in infrastructure.instances_of(deployment)
        )
    moment = now()
    return [(customer_id, resource, "", "monthly_cost", moment, cost) for resource, cost in costs.items()]


def _infrastructure(row: Row) -> Infrastructure:
    failed = next((account for account in row.accounts if account["status"] == CloudAccountStatus.FAILED), None)
    return Infrastructure(
        status=inventory_status([CloudAccountStatus(account["status"]) for account in row.accounts]),
        error=failed["error"] if failed else None,
        instances=[_instance(stored) for stored in row.instances],
        vllm_deployments=[_deployment(stored) for stored in row.deployments],
    )


def _instance(stored: dict[str, Any]) -> Instance:
    known = INSTANCE_TYPES.get(stored["instance_type"])
    gpus = {"gpu_type": known.gpu.name, "gpu_count": known.gpu_count} if known else {"gpu_type": None, "gpu_count": 0}
    return Instance.model_validate(stored | gpus)


def _deployment(stored: dict[str, Any]) -> Deployment:
    seen = DiscoveredDeployment.model_validate(stored["described"])
    return Deployment(
        deployment_id=stored["id"],
        name=seen.name,
        model=seen.model,
        provider=seen.provider,
        region=seen.region,
        replicas=sum(
            replica.state != "dead" and seen.weights.get(replica.replica_id, 0) > 0 for replica in seen.replicas
        ),
        engine_args=seen.engine_args,
        weights=seen.weights,
        slo=seen.slo,
        interruptible=seen.interruptible,
        engines=seen.replicas,
    )
