"""Looking into clouds that answer late, differently or not at all: what PostgreSQL holds in the end."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select, text

from optiinfra.api.customers import Onboard
from optiinfra.clouds.price_book import PriceBook
from optiinfra.clouds.protocol import CloudError, CloudInstance
from optiinfra.kit.problems import Problem
from optiinfra.orchestrator.customers.service import add_cloud_account
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]

ROLE = "arn:aws:iam::111122223333:role/optiinfra"


class Clouds:
    """Accounts that answer as told: each look at one takes the next answer, and waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Callable[[models.CloudAccount], Awaitable[list[CloudInstance]]]] = []
        self.asked = asyncio.Event()
        monkeypatch.setattr(inventory, "cloud_of", self._cloud_of)

    async def _cloud_of(self, _settings: Any, account: models.CloudAccount) -> Any:
        answer = self.answers.pop(0)
        self.asked.set()
        return SimpleNamespace(instances=lambda: answer(account))


class Telemetry:
    """Takes costs in, but for the first so many times."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.away_for = 0

    async def insert_samples(self, rows: list[Any], _token: str | None) -> None:
        if self.away_for:
            self.away_for -= 1
            raise StoreUnavailable("ClickHouse does not answer (OperationalError)")
        self.costs += [value for _customer, resource, *_rest, value in rows if resource == inventory.ESTATE]

    async def insert_latencies(self, _rows: list[Any], _token: str | None) -> None:
        """There are none."""


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> Clouds:
    return Clouds(monkeypatch)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def platform(database: Database, telemetry: Telemetry) -> Platform:
    platform = SimpleNamespace(database=database, telemetry=telemetry, prices=PriceBook.load(), settings=None)
    return cast("Platform", platform)


def onboarding(external_id: str = "right") -> Onboard:
    return Onboard(cloud_provider="aws", region="us-east-1", iam_role_arn=ROLE, external_id=external_id)


def instance(name: str) -> CloudInstance:
    return CloudInstance(name, "aws", "us-east-1", "p4d.24xlarge", "on-demand", "running", {})


def showing(*names: str, after: asyncio.Event | None = None) -> Any:
    """A cloud that has these instances and answers once `after` is set, but refuses a wrong external id."""

    async def answer(account: models.CloudAccount) -> list[CloudInstance]:
        if after is not None:
            await after.wait()
        if account.external_id != "right":
            raise CloudError("AssumeRole: AccessDenied: not with that external id")
        return [instance(name) for name in names]

    return answer


async def seen(platform: Platform) -> tuple[str, list[str]]:
    """Status and instances of the customer's estate."""
    async with platform.database.transaction() as session:
        estate = await inventory.describe(session, CUSTOMER)
    return estate.status, [each.instance_id for each in estate.instances]


async def discoveries(platform: Platform) -> int:
    """How often the customer was told that their estate is discovered."""
    told = select(models.Event.id).where(models.Event.event_type == "infrastructure_discovered")
    async with platform.database.transaction() as session:
        return len(list(await session.scalars(told)))


async def test_an_account_that_is_mended_during_a_look_is_seen(platform: Platform, clouds: Clouds) -> None:
    late = asyncio.Event()
    clouds.answers = [showing(after=late), showing("i-1")]
    await add_cloud_account(platform, CUSTOMER, onboarding("wrong"))
    first = asyncio.create_task(inventory.discover(platform, CUSTOMER))
    await asyncio.wait_for(clouds.asked.wait(), 5)
    await add_cloud_account(platform, CUSTOMER, onboarding("right"))
    late.set()
    await first
    assert await seen(platform) == ("discovering", []), "the first look's answer is no longer asked for"
    await inventory.discover(platform, CUSTOMER)
    assert await seen(platform) == ("discovered", ["i-1"])
    assert await discoveries(platform) == 1


async def test_an_older_look_does_not_undo_a_newer(platform: Platform, clouds: Clouds) -> None:
    late = asyncio.Event()
    clouds.answers = [showing("i-old", after=late), showing("i-new")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    older = asyncio.create_task(inventory.refresh(platform, CUSTOMER))
    await asyncio.wait_for(clouds.asked.wait(), 5)
    await inventory.refresh(platform, CUSTOMER)
    late.set()
    assert [each.instance_id for each in (await older).instances] == ["i-new"]
    assert await seen(platform) == ("discovered", ["i-new"])
    assert await discoveries(platform) == 1, "both looks saw an account that had not been seen before"


async def test_a_cloud_is_not_asked_within_a_transaction(platform: Platform, clouds: Clouds) -> None:
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


async def test_first_costs_come_once_clickhouse_is_back(
    platform: Platform, clouds: Clouds, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_COSTS_PAUSE_SECONDS", 0.01)
    clouds.answers, telemetry.away_for = [showing("i-1")], 3
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.discover(platform, CUSTOMER)
    assert len(telemetry.costs) == 1
    assert telemetry.costs[0] > 0
    assert await discoveries(platform) == 1


async def test_an_account_that_cannot_be_seen_says_why(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing()]
    await add_cloud_account(platform, CUSTOMER, onboarding("wrong"))
    await inventory.discover(platform, CUSTOMER)
    assert await seen(platform) == ("failed", [])
    assert await discoveries(platform) == 0


async def test_nobody_onboards_for_a_customer_who_has_left(platform: Platform) -> None:
    with pytest.raises(Problem, match="no such customer") as refused:
        await add_cloud_account(platform, "cust_gone", onboarding())
    assert refused.value.status == 404


async def test_discovery_is_told_once(platform: Platform, clouds: Clouds) -> None:
    clouds.answers = [showing("i-1"), showing("i-1", "i-2"), showing("i-2")]
    await add_cloud_account(platform, CUSTOMER, onboarding())
    await inventory.discover(platform, CUSTOMER)
    await inventory.discover(platform, CUSTOMER)
    await inventory.refresh(platform, CUSTOMER)
    assert await seen(platform) == ("discovered", ["i-2"])
    assert await discoveries(platform) == 1
