"""The inventory after listings of clouds that answer late, out of order or not at all, and after runtime reports."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select, text

from optiinfra.api.customers import DiscoveredDeployment, Infrastructure, Onboard, Replica, Slo
from optiinfra.clouds.price_book import PriceBook
from optiinfra.clouds.protocol import CloudError, CloudInstance, CloudUnavailable
from optiinfra.domain.recommendation import InstanceState
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator import recovery
from optiinfra.orchestrator.background import is_in_progress
from optiinfra.orchestrator.customers import service as customers
from optiinfra.orchestrator.customers.service import add_cloud_account
from optiinfra.orchestrator.errors import Conflict, NotFound
from optiinfra.orchestrator.inventory import repository
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]

ACCOUNT, SECOND_ACCOUNT = "111122223333", "444455556666"


class Clouds:
    """Cloud accounts: each listing of one takes the next of `answers`, and waits for it.

    While they are onboarded, the cloud does not answer.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(customers, "enter", self._enter)
        self.answers: list[Callable[[models.CloudAccount], Awaitable[list[CloudInstance]]]] = []
        self.asked = asyncio.Event()
        monkeypatch.setattr(inventory, "cloud_of", self._cloud_of)

    async def _cloud_of(self, _settings: Any, account: models.CloudAccount) -> Any:
        answer = self.answers.pop(0)
        self.asked.set()
        return SimpleNamespace(instances=lambda: answer(account))

    async def _enter(self, *_account: Any) -> None:
        raise CloudUnavailable("AssumeRole: ConnectTimeoutError")


class Telemetry:
    """Stores costs, but is unavailable for the first `outages` inserts."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.outages = 0

    async def insert_samples(self, rows: list[Any], _token: str | None) -> None:
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("ClickHouse does not answer (OperationalError)")
        self.costs += [value for _customer, resource, *_rest, value in rows if resource == inventory.ESTATE]


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> Clouds:
    return Clouds(monkeypatch)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def platform(database: Database, telemetry: Telemetry) -> Platform:
    settings = SimpleNamespace(inventory_seconds=300.0, quota_onboardings=100)
    platform = SimpleNamespace(database=database, telemetry=telemetry, prices=PriceBook.load(), settings=settings)
    return cast("Platform", platform)


def onboarding(account_id: str = ACCOUNT) -> Onboard:
    role = f"arn:aws:iam::{account_id}:role/optiinfra"
    return Onboard(cloud_provider="aws", region="us-east-1", iam_role_arn=role)


def instance(name: str, state: InstanceState = "running") -> CloudInstance:
    return CloudInstance(name, "aws", "us-east-1", "p4d.24xlarge", "on-demand", state, {})


def showing(*names: str, after: asyncio.Event | None = None, state: InstanceState = "running") -> Any:
    """An answer with these instances in this state, once `after` is set."""

    async def answer(_account: models.CloudAccount) -> list[CloudInstance]:
        if after is not None:
            await after.wait()
        return [instance(name, state) for name in names]

    return answer


def refusing(after: asyncio.Event | None = None) -> Any:
    """A refusal of the role, once `after` is set."""

    async def answer(_account: models.CloudAccount) -> list[CloudInstance]:
        if after is not None:
            await after.wait()
        raise CloudError("AssumeRole: AccessDenied: not with that external id")

    return answer


async def seen(platform: Platform) -> tuple[str, list[str]]:
    """Status and instances of the customer's estate."""
    estate = await inventory.describe(platform.database, CUSTOMER)
    return estate.status, [each.instance_id for each in estate.instances]


async def discoveries(platform: Platform) -> int:
    """How many infrastructure_discovered events the customer has."""
    events = select(models.Event.id).where(models.Event.event_type == "infrastructure_discovered")
    async with platform.database.transaction() as session:
        return len(list(await session.scalars(events)))


async def test_discover_of_a_corrected_account_drops_the_earlier_listing(platform: Platform, clouds: Clouds) -> None:
    late = asyncio.Event()
    clouds.answers = [refusing(late), showing("i-1")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    first = asyncio.create_task(inventory.discover(platform, CUSTOMER))
    await asyncio.wait_for(clouds.asked.wait(), 5)
    await add_cloud_account(platform, CUSTOMER, onboarding())
    late.set()
    await first
    assert await seen(platform) == ("discovering", []), "the earlier listing began before the role was corrected"
    await inventory.discover(platform, CUSTOMER)
    assert await seen(platform) == ("discovered", ["i-1"])
    assert await discoveries(platform) == 1


async def test_refresh_that_began_earlier_does_not_overwrite_a_later_one(platform: Platform, clouds: Clouds) -> None:
    late = asyncio.Event()
    clouds.answers = [showing("i-old", after=late), showing("i-new")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    older = asyncio.create_task(inventory.refresh(platform, CUSTOMER))
    await asyncio.wait_for(clouds.asked.wait(), 5)
    await inventory.refresh(platform, CUSTOMER)
    late.set()
    assert [each.instance_id for each in (await older).instances] == ["i-new"]
    assert await seen(platform) == ("discovered", ["i-new"])
    assert await discoveries(platform) == 1, "both listings were the first of the account"


async def test_refresh_holds_no_transaction_while_it_asks_a_cloud(platform: Platform, clouds: Clouds) -> None:
    held: list[int] = []

    async def answer(_account: models.CloudAccount) -> list[CloudInstance]:
        others = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in %' AND usename = current_user"
        async with platform.database.transaction() as session:
            held.append(await session.scalar(text(others)) or 0)
        return []

    clouds.answers = [answer]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.refresh(platform, CUSTOMER)
    assert held == [0]


async def test_discover_stores_the_first_costs_after_an_outage_of_clickhouse(
    platform: Platform, clouds: Clouds, telemetry: Telemetry
) -> None:
    clouds.answers, telemetry.outages = [showing("i-1")], 3
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.discover(platform, CUSTOMER, retry_seconds=0.01)
    assert len(telemetry.costs) == 1
    assert telemetry.costs[0] > 0
    assert await discoveries(platform) == 1


async def test_discover_of_an_unreadable_account_marks_it_as_failed(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [refusing()]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.discover(platform, CUSTOMER)
    assert await seen(platform) == ("failed", [])
    assert await discoveries(platform) == 0


async def test_refresh_with_an_unreadable_account_fails_only_if_that_is_required(
    platform: Platform, clouds: Clouds
) -> None:
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await add_cloud_account(platform, CUSTOMER, onboarding(SECOND_ACCOUNT))
    async with platform.database.transaction() as session:
        readable, unreadable = [each.id for each in await repository.accounts(session, CUSTOMER)]

    clouds.answers = [showing("i-1"), refusing()]
    (estate,) = await asyncio.gather(inventory.refresh(platform, CUSTOMER, [readable]), return_exceptions=True)
    assert isinstance(estate, Infrastructure), f"it raised {estate}"
    assert [each.instance_id for each in estate.instances] == ["i-1"]
    for required in ([unreadable], None):
        clouds.answers = [showing("i-1"), refusing()]
        with pytest.raises(CloudError, match="AccessDenied"):
            await inventory.refresh(platform, CUSTOMER, required)


@pytest.mark.parametrize(("seconds", "listed"), [(290, ["i-1"]), (310, ["i-2"])], ids=["recent", "old"])
async def test_recover_lists_an_account_again_whose_listing_is_old(
    platform: Platform, clouds: Clouds, seconds: int, listed: list[str]
) -> None:
    clouds.answers = [showing("i-1"), showing("i-2")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.discover(platform, CUSTOMER)
    async with platform.database.transaction() as session:
        (account,) = await repository.accounts(session, CUSTOMER)
        account.as_of -= timedelta(seconds=seconds)

    async def ended() -> None:
        assert not is_in_progress(inventory.discovery_of(CUSTOMER))

    nothing: Any = SimpleNamespace(start=None, start_rollback=None)  # there is neither analysis nor optimization
    await recovery.recover(platform, nothing, nothing, timedelta())
    await asyncio.sleep(0)  # lets the started task take its first step
    await retry_until_deadline(ended, "the discovery to end", 5.0, interval=0.01)
    assert (await seen(platform))[1] == listed


async def test_instance_without_a_known_price_has_no_cost(platform: Platform, clouds: Clouds) -> None:
    async def answer(_account: models.CloudAccount) -> list[CloudInstance]:
        return [
            replace(instance("i-1"), instance_type="t2.micro"),
            replace(instance("i-2", "stopped"), instance_type="t2.micro"),
        ]

    clouds.answers = [answer]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    estate = await inventory.refresh(platform, CUSTOMER)
    assert {one.instance_id: one.monthly_cost for one in estate.instances} == {"i-1": None, "i-2": 0.0}
    assert estate.unpriced_instances == 1


async def test_add_cloud_account_of_a_deleted_customer_is_not_found(platform: Platform) -> None:
    with pytest.raises(NotFound, match="no such customer"):
        await add_cloud_account(platform, "cust_gone", onboarding())


async def test_discovery_is_recorded_once(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing("i-1"), showing("i-1", "i-2"), showing("i-2")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.discover(platform, CUSTOMER)
    await inventory.discover(platform, CUSTOMER)
    await inventory.refresh(platform, CUSTOMER)
    assert await seen(platform) == ("discovered", ["i-2"])
    assert await discoveries(platform) == 1


@pytest.fixture
async def runtime(platform: Platform, customer: None) -> None:
    """A runtime of the customer that has connected."""
    async with platform.database.transaction() as session:
        session.add(models.Runtime(id="runtime_1", customer_id=CUSTOMER, hostname="h", version="1"))


async def report(platform: Platform, *replicas: tuple[str, Any]) -> None:
    """Have the runtime report one deployment with replicas on these instances, in these states."""
    deployment = DiscoveredDeployment(
        name="chat",
        model="m",
        provider="aws",
        region="us-east-1",
        engine_args={},
        weights={},
        slo=Slo(p95_latency_ms=1000, quality=0.9),
        interruptible=True,
        replicas=[
            Replica(replica_id=f"rep_{instance_id}", instance_id=instance_id, instance_type="p4d.24xlarge", state=state)
            for instance_id, state in replicas
        ],
    )
    async with platform.database.transaction() as session:
        await inventory.store_deployments(session, CUSTOMER, [deployment])


async def idle(platform: Platform) -> dict[str, datetime | None]:
    """Since when each instance is idle."""
    estate = await inventory.describe(platform.database, CUSTOMER)
    return {each.instance_id: each.idle_since for each in estate.instances}


@pytest.mark.usefixtures("runtime")
async def test_refresh_keeps_idle_since_of_an_instance_that_stays_idle(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing("i-1", "i-2"), showing("i-1", "i-2")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await report(platform, ("i-1", "ready"), ("i-2", "dead"))
    await inventory.refresh(platform, CUSTOMER)
    first = await idle(platform)
    assert first["i-1"] is None
    assert first["i-2"] is not None, "a dead engine does not use its instance"
    await inventory.refresh(platform, CUSTOMER)
    assert await idle(platform) == first


@pytest.mark.usefixtures("runtime")
async def test_report_of_use_between_two_refreshes_restarts_idle_since(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing("i-1")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.refresh(platform, CUSTOMER)
    before = (await idle(platform))["i-1"]
    await report(platform, ("i-1", "starting"))
    assert await idle(platform) == {"i-1": None}
    await report(platform)
    after = (await idle(platform))["i-1"]
    assert before is not None
    assert after is not None
    assert after > before


@pytest.mark.usefixtures("runtime")
async def test_report_without_a_deployment_makes_its_instances_idle(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing("i-1")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await report(platform, ("i-1", "ready"))
    await inventory.refresh(platform, CUSTOMER)
    async with platform.database.transaction() as session:
        await inventory.store_deployments(session, CUSTOMER, [])
    assert (await idle(platform))["i-1"] is not None


@pytest.mark.usefixtures("runtime")
async def test_refresh_clears_idle_since_of_a_stopped_instance(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing("i-1"), showing("i-1", state="stopped")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.refresh(platform, CUSTOMER)
    await inventory.refresh(platform, CUSTOMER)
    assert await idle(platform) == {"i-1": None}


async def test_no_instance_is_idle_before_a_runtime_has_connected(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing("i-1")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.refresh(platform, CUSTOMER)
    assert await idle(platform) == {"i-1": None}


async def test_store_deployments_of_a_deleted_customer_is_refused(platform: Platform) -> None:
    async with platform.database.transaction() as session:
        with pytest.raises(NotFound, match="no such customer"):
            await inventory.store_deployments(session, "cust_gone", [])


def listing_of(**instances: list[str]) -> Any:
    """An answer with the instances of the account that is asked, by `a` and account number."""

    async def answer(account: models.CloudAccount) -> list[CloudInstance]:
        return [instance(name) for name in instances[f"a{account.account_id}"]]

    return answer


async def test_account_of_is_the_account_that_holds_the_instances(platform: Platform, clouds: Clouds) -> None:
    answer = listing_of(**{f"a{ACCOUNT}": ["i-1"], f"a{SECOND_ACCOUNT}": ["i-2", "i-3"]})
    clouds.answers = [answer, answer]
    for account_id in (ACCOUNT, SECOND_ACCOUNT):  # both in one region
        await add_cloud_account(platform, CUSTOMER, onboarding(account_id=account_id))
    estate = await inventory.refresh(platform, CUSTOMER)
    accounts = {each.instance_id: each.account_id for each in estate.instances}
    assert accounts == {"i-1": ACCOUNT, "i-2": SECOND_ACCOUNT, "i-3": SECOND_ACCOUNT}
    async with platform.database.transaction() as session:
        held = await inventory.account_of(session, CUSTOMER, ["i-2", "i-3"])
        assert (held.account_id, held.role_arn) == (SECOND_ACCOUNT, f"arn:aws:iam::{SECOND_ACCOUNT}:role/optiinfra")
        with pytest.raises(Conflict, match=f"{ACCOUNT} us-east-1 has i-1") as several:
            await inventory.account_of(session, CUSTOMER, ["i-1", "i-2"])
        with pytest.raises(Conflict, match="no connected cloud account has i-9") as unknown:
            await inventory.account_of(session, CUSTOMER, ["i-1", "i-9"])
        with pytest.raises(Conflict, match="no connected cloud account has i-1"):
            await inventory.account_of(session, "cust_other", ["i-1"])
        with pytest.raises(Conflict, match="no instance given"):
            await inventory.account_of(session, CUSTOMER, [])
    assert several.value.code == "instances_in_several_accounts"
    assert unknown.value.code == "instances_unknown"
