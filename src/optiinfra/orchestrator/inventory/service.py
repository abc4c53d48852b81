"""What a customer owns: instances from the clouds, deployments from the runtime, costs from the price book."""

import asyncio
from datetime import datetime

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.api.customers import Deployment, DiscoveredDeployment, Infrastructure, Instance
from optiinfra.clouds.price_book import UnknownPriceError
from optiinfra.clouds.protocol import Cloud, CloudError, CloudInstance
from optiinfra.domain.hardware import INSTANCE_TYPES
from optiinfra.domain.savings import monthly, total
from optiinfra.kit.ids import new_id
from optiinfra.kit.waiting import DeadlineError, until_answers
from optiinfra.orchestrator.background import under_way
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.inventory.clouds import cloud_of
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.telemetry import service as telemetry
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)

_Listing = tuple[list[CloudInstance], dict[str, float]]
"""An account's instances, and what its cloud asks for types on spot, dollars an hour."""

_DISCOVERIES = asyncio.Semaphore(8)
"""First looks at once: each may keep a worker thread busy for as long as its cloud does not answer."""

_COSTS_SECONDS, _COSTS_PAUSE_SECONDS = 600.0, 1.0
"""How long an estate's first costs are tried to be kept, and how often."""

ESTATE = ""
"""Resource id under which figures of a whole estate are kept."""


async def accounts(session: AsyncSession, customer_id: str) -> list[models.CloudAccount]:
    """The customer's cloud accounts, oldest first."""
    mine = select(models.CloudAccount).where(models.CloudAccount.customer_id == customer_id)
    return list(await session.scalars(mine.order_by(models.CloudAccount.created_at)))


async def describe(session: AsyncSession, customer_id: str) -> Infrastructure:
    """All that is known of the customer's estate, without asking anybody."""
    clouds = await accounts(session, customer_id)
    instances = await session.scalars(
        select(models.Instance).where(models.Instance.customer_id == customer_id).order_by(models.Instance.instance_id)
    )
    there = models.Deployment.customer_id == customer_id, models.Deployment.gone_at.is_(None)
    deployments = await session.scalars(select(models.Deployment).where(*there).order_by(models.Deployment.name))
    failed = next((cloud for cloud in clouds if cloud.status == "failed"), None)
    known = {cloud.status for cloud in clouds}
    status = "failed" if failed else "discovering" if "discovering" in known else "discovered" if known else "pending"
    return Infrastructure(
        status=status,
        error=failed.error if failed else None,
        instances=[_instance(row) for row in instances],
        vllm_deployments=[_deployment(row) for row in deployments],
    )


async def refresh(platform: Platform, customer_id: str) -> Infrastructure:
    """Read every cloud account anew, price what runs, and describe the result.

    Raises CloudError when an account cannot be read, which the account then shows, and NoResultFound when the customer
    has left.
    """
    infrastructure = await _look(platform, customer_id)
    await telemetry.append(platform, customer_id, _costs(customer_id, infrastructure))
    return infrastructure


async def discover(platform: Platform, customer_id: str) -> None:
    """First look after onboarding; an account that cannot be read is the customer's to mend, not an error of ours."""
    try:
        with under_way(discovery_of(customer_id)):
            async with _DISCOVERIES:
                infrastructure = await _look(platform, customer_id)
        costs, once = _costs(customer_id, infrastructure), f"{customer_id}:first costs:{now().isoformat()}"
        # The accounts are discovered: nobody would look again for the sake of their first costs.
        await until_answers(
            lambda: telemetry.append(platform, customer_id, costs, token=once),
            "ClickHouse",
            _COSTS_SECONDS,
            interval=_COSTS_PAUSE_SECONDS,
        )
    except CloudError as error:
        log.warning("discovery failed", customer_id=customer_id, error=str(error))
    except NoResultFound:
        log.info("discovery ends, for its customer has left", customer_id=customer_id)
    except DeadlineError as error:
        log.warning("an estate's first costs are not kept", customer_id=customer_id, error=str(error))


def discovery_of(customer_id: str) -> str:
    """The name under which a first look is `background.under_way`."""
    return f"discovery of {customer_id}"


async def spot_quotes(platform: Platform, customer_id: str, infrastructure: Infrastructure) -> dict[str, float]:
    """What the clouds ask for the instance types in use, dollars an hour by `region/instance_type`."""
    async with platform.database.transaction() as session:
        clouds = await accounts(session, customer_id)
    quotes: dict[str, float] = {}
    for account in clouds:
        cloud = await cloud_of(platform.settings, account)
        types = {instance.instance_type for instance in infrastructure.instances if instance.region == account.region}
        quotes |= {f"{account.region}/{kind}": quote for kind, quote in (await _quotes(cloud, types)).items()}
    return quotes


async def store_deployments(
    session: AsyncSession, customer_id: str, deployments: list[DiscoveredDeployment]
) -> dict[str, str]:
    """Keep what the runtime reports; what it no longer does is gone, though its past stays. Our id of each, by name."""
    table = models.Deployment
    names = [deployment.name for deployment in deployments]
    missing = table.customer_id == customer_id, table.name.not_in(names), table.gone_at.is_(None)
    await session.execute(update(table).where(*missing).values(gone_at=now()))
    ids: dict[str, str] = {}
    for deployment in deployments:
        described = deployment.model_dump(mode="json")
        statement = insert(table).values(
            id=new_id("dep"), customer_id=customer_id, name=deployment.name, described=described, seen_at=now()
        )
        statement = statement.on_conflict_do_update(
            index_elements=["customer_id", "name"], set_={"described": described, "seen_at": now(), "gone_at": None}
        )
        ids[deployment.name] = (await session.execute(statement.returning(table.id))).scalar_one()
    return ids


async def _look(platform: Platform, customer_id: str) -> Infrastructure:
    """Read every cloud account and keep what is seen. The clouds are asked outside of any transaction: they take time.

    Of looks side by side the one that began last has the last word, whichever ends last. CloudError when an account's
    last word is that it cannot be read.
    """
    async with platform.database.transaction() as session:
        began: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
        clouds = await accounts(session, customer_id)
    listings = await asyncio.gather(*(_list(platform, account) for account in clouds), return_exceptions=True)
    listed = {account.id: listing for account, listing in zip(clouds, listings, strict=True)}
    async with platform.database.transaction() as session:
        # Before their rows, as who deletes the customer does: otherwise each could wait for the other.
        await session.get_one(models.Customer, customer_id, with_for_update={"key_share": True})
        newest = [each for each in await accounts(session, customer_id) if each.id in listed and each.as_of <= began]
        unseen = [account for account in newest if account.status == "discovering"]
        for account in newest:
            account.as_of = began
            await _store(session, platform, account, listed[account.id])
        await session.flush()
        infrastructure = await describe(session, customer_id)
        if any(account.status == "discovered" for account in unseen):
            payload = {"instances": len(infrastructure.instances), "deployments": len(infrastructure.vllm_deployments)}
            await record(session, customer_id, "infrastructure_discovered", "orchestrator", payload)
    for account in newest:
        if isinstance(error := listed[account.id], BaseException):
            raise error
    return infrastructure


async def _list(platform: Platform, account: models.CloudAccount) -> _Listing:
    """The account's instances, and what the cloud asks for the types of those on spot."""
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
        account.status, account.error = "failed", str(listing)
    else:
        account.status, account.error = "discovered", None
        await _store_instances(session, platform, account, *listing)


async def _store_instances(
    session: AsyncSession,
    platform: Platform,
    account: models.CloudAccount,
    listing: list[CloudInstance],
    quotes: dict[str, float],
) -> None:
    table = models.Instance
    await session.execute(
        delete(table).where(
            table.cloud_account_id == account.id, table.instance_id.not_in([seen.instance_id for seen in listing])
        )
    )
    for seen in listing:
        columns = {
            "cloud_account_id": account.id,
            "provider": seen.provider,
            "region": seen.region,
            "instance_type": seen.instance_type,
            "lifecycle": seen.lifecycle,
            "state": seen.state,
            "monthly_cost": _monthly_cost(platform, seen, quotes.get(seen.instance_type)),
            "seen_at": account.as_of,
        }
        statement = insert(table).values(customer_id=account.customer_id, instance_id=seen.instance_id, **columns)
        await session.execute(
            statement.on_conflict_do_update(index_elements=["customer_id", "instance_id"], set_=columns)
        )


def _monthly_cost(platform: Platform, seen: CloudInstance, quoted: float | None) -> float:
    if seen.state != "running":
        return 0.0
    try:
        price = platform.prices.hourly(seen.provider, seen.region, seen.instance_type, seen.lifecycle, quoted)
        return round(monthly(price), 2)
    except UnknownPriceError as error:
        # Not one of ours to optimize: shown, but counted as nothing rather than guessed.
        log.warning("instance has no known price", instance_id=seen.instance_id, error=str(error))
        return 0.0


def _costs(customer_id: str, infrastructure: Infrastructure) -> telemetry.Samples:
    """What the estate and each deployment cost a month, as of now."""
    costs = {ESTATE: total(instance.monthly_cost for instance in infrastructure.instances)}
    for deployment in infrastructure.vllm_deployments:
        costs[deployment.deployment_id] = total(
            instance.monthly_cost for instance in infrastructure.instances_of(deployment)
        )
    moment = now()
    return [(customer_id, resource, "", "monthly_cost", moment, cost) for resource, cost in costs.items()]


def _instance(row: models.Instance) -> Instance:
    known = INSTANCE_TYPES.get(row.instance_type)
    return Instance(
        instance_id=row.instance_id,
        provider=row.provider,
        region=row.region,
        instance_type=row.instance_type,
        lifecycle=row.lifecycle,
        gpu_type=known.gpu.name if known else None,
        gpu_count=known.gpu_count if known else 0,
        monthly_cost=row.monthly_cost,
        state=row.state,
    )


def _deployment(row: models.Deployment) -> Deployment:
    seen = DiscoveredDeployment.model_validate(row.described)
    return Deployment(
        deployment_id=row.id,
        name=seen.name,
        model=seen.model,
        provider=seen.provider,
        region=seen.region,
        replicas=sum(1 for replica in seen.replicas if seen.weights.get(replica.replica_id, 0) > 0),
        engine_args=seen.engine_args,
        weights=seen.weights,
        slo=seen.slo,
        interruptible=seen.interruptible,
        engines=seen.replicas,
    )
