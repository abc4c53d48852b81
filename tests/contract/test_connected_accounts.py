"""Whose a cloud account is: of the customer that entered it first, and nobody else's."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import delete, select

from optiinfra.api.customers import Onboard
from optiinfra.clouds.price_book import PriceBook
from optiinfra.clouds.protocol import CloudError, CloudInstance, CloudUnavailable, RoleDenied
from optiinfra.orchestrator.customers import service as customers
from optiinfra.orchestrator.errors import Conflict, TooManyRequests
from optiinfra.orchestrator.inventory import repository
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]

OTHER = "cust_2"
ACCOUNT, SECOND_ACCOUNT = "111122223333", "444455556666"


class Clouds:
    """Accounts with one instance each, which every role leads into unless there is a `failure`."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.entered: list[tuple[str, str]] = []
        """Role and external id, in the order in which roles were assumed."""
        self.listed: list[str] = []

    async def enter(self, _settings: Any, _region: str, role_arn: str, external_id: str, _account_id: str) -> None:
        self.entered.append((role_arn, external_id))
        if self.failure is not None:
            raise self.failure

    async def cloud_of(self, _settings: Any, account: models.CloudAccount) -> Any:
        await self.enter(None, "", account.role_arn, account.external_id, "")
        self.listed.append(account.role_arn)
        return SimpleNamespace(instances=lambda: self._instances(account))

    async def _instances(self, account: models.CloudAccount) -> list[CloudInstance]:
        name = f"i-{account.account_id}"
        return [CloudInstance(name, "aws", "us-east-1", "p4d.24xlarge", "on-demand", "running", {})]


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> Clouds:
    made = Clouds()
    monkeypatch.setattr(customers, "enter", made.enter)
    monkeypatch.setattr(inventory, "cloud_of", made.cloud_of)
    return made


@pytest.fixture
async def platform(database: Database, clouds: Clouds) -> AsyncIterator[Platform]:
    """A platform with a second customer."""
    async with database.transaction() as session:
        session.add(models.Customer(id=OTHER, company_name="y", plan="pro", preferences={}))

    async def keep_nothing(*_rows: Any) -> None:
        """Costs are not used here."""

    telemetry = SimpleNamespace(insert_samples=keep_nothing)
    made = SimpleNamespace(
        database=database, telemetry=telemetry, prices=PriceBook.load(), settings=SimpleNamespace(quota_onboardings=100)
    )
    yield cast("Platform", made)
    async with database.transaction() as session:
        await session.execute(delete(models.ConnectedAccount))


def role(account_id: str = ACCOUNT, name: str = "optiinfra") -> Onboard:
    return Onboard(cloud_provider="aws", region="us-east-1", iam_role_arn=f"arn:aws:iam::{account_id}:role/{name}")


async def holders(platform: Platform) -> dict[str, str]:
    """The customer of each connected account."""
    table = models.ConnectedAccount
    async with platform.database.transaction() as session:
        rows = await session.execute(select(table.account_id, table.customer_id))
        return {row.account_id: row.customer_id for row in rows}


async def accounts_of(platform: Platform, customer_id: str) -> list[models.CloudAccount]:
    async with platform.database.transaction() as session:
        return await repository.accounts(session, customer_id)


async def shown(platform: Platform, customer_id: str) -> tuple[str, str | None, list[str]]:
    estate = await inventory.describe(platform.database, customer_id)
    return estate.status, estate.error, [one.instance_id for one in estate.instances]


async def test_onboarding_assumes_the_role_with_the_external_id_of_the_customer(
    platform: Platform, clouds: Clouds
) -> None:
    for customer_id, account_id in ((CUSTOMER, ACCOUNT), (OTHER, SECOND_ACCOUNT)):
        stored = await customers.add_cloud_account(platform, customer_id, role(account_id))
        await inventory.discover(platform, customer_id, stored)
    async with platform.database.transaction() as session:
        mine, theirs = [await session.get_one(models.Customer, one) for one in (CUSTOMER, OTHER)]
    assert mine.external_id != theirs.external_id
    first, second = role().iam_role_arn, role(SECOND_ACCOUNT).iam_role_arn
    assert clouds.entered == [(first, mine.external_id)] * 2 + [(second, theirs.external_id)] * 2


@pytest.mark.parametrize("name", ["optiinfra", "another-role"])
async def test_account_of_another_customer_is_refused_before_its_role_is_assumed(
    platform: Platform, clouds: Clouds, name: str
) -> None:
    await customers.add_cloud_account(platform, CUSTOMER, role())
    clouds.entered.clear()
    with pytest.raises(Conflict) as refused:
        await customers.add_cloud_account(platform, OTHER, role(name=name))
    assert (refused.value.code, refused.value.detail) == ("account_taken", inventory.ACCOUNT_TAKEN)
    assert CUSTOMER not in refused.value.detail
    assert clouds.entered == []
    assert await accounts_of(platform, OTHER) == []
    assert await holders(platform) == {ACCOUNT: CUSTOMER}
    await customers.add_cloud_account(platform, CUSTOMER, role(name="another-role"))


async def test_account_above_the_quota_is_refused_before_its_role_is_assumed(
    platform: Platform, clouds: Clouds
) -> None:
    cast("Any", platform.settings).quota_onboardings = 1
    await customers.add_cloud_account(platform, CUSTOMER, role())
    clouds.entered.clear()
    with pytest.raises(TooManyRequests, match="at most 1 accounts"):
        await customers.add_cloud_account(platform, CUSTOMER, role(SECOND_ACCOUNT))
    assert clouds.entered == []
    assert [account.account_id for account in await accounts_of(platform, CUSTOMER)] == [ACCOUNT]


async def test_account_that_two_customers_onboard_at_once_is_only_one_s(platform: Platform) -> None:
    for number in range(5):
        account_id = f"{number:012}"
        both = (customers.add_cloud_account(platform, one, role(account_id)) for one in (CUSTOMER, OTHER))
        answers = await asyncio.gather(*both, return_exceptions=True)
        assert Counter(type(answer) for answer in answers) == {Conflict: 1, str: 1}, answers
        winner = CUSTOMER if isinstance(answers[0], str) else OTHER
        assert (await holders(platform))[account_id] == winner


@pytest.mark.parametrize("failure", [RoleDenied("AssumeRole: AccessDenied"), CloudUnavailable("away")])
async def test_naming_a_role_that_cannot_be_assumed_reserves_nothing(
    platform: Platform, clouds: Clouds, failure: CloudError
) -> None:
    clouds.failure = failure
    stored = await customers.add_cloud_account(platform, OTHER, role())
    await inventory.discover(platform, OTHER, stored)
    assert await shown(platform, OTHER) == ("failed", str(failure), [])
    assert await holders(platform) == {}
    clouds.failure = None
    stored = await customers.add_cloud_account(platform, CUSTOMER, role())
    await inventory.discover(platform, CUSTOMER, stored)
    assert await shown(platform, CUSTOMER) == ("discovered", None, [f"i-{ACCOUNT}"])


async def test_discovery_of_an_account_that_another_customer_connected_meanwhile_shows_nothing(
    platform: Platform, clouds: Clouds
) -> None:
    clouds.failure = CloudUnavailable("away")
    late = await customers.add_cloud_account(platform, OTHER, role())
    clouds.failure = None
    await customers.add_cloud_account(platform, CUSTOMER, role())
    for _ in range(2):
        await inventory.discover(platform, OTHER, late)
        assert await shown(platform, OTHER) == ("failed", inventory.ACCOUNT_TAKEN, [])
    assert await holders(platform) == {ACCOUNT: CUSTOMER}


async def test_account_that_is_another_customer_s_by_now_loses_its_stored_instances(
    platform: Platform, clouds: Clouds
) -> None:
    stored = await customers.add_cloud_account(platform, OTHER, role())
    await inventory.discover(platform, OTHER, stored)
    assert (await shown(platform, OTHER))[2] == [f"i-{ACCOUNT}"]
    async with platform.database.transaction() as session:
        held = await session.get_one(models.ConnectedAccount, ("aws", ACCOUNT))
        held.customer_id = CUSTOMER
    await inventory.discover(platform, OTHER, stored)
    assert await shown(platform, OTHER) == ("failed", inventory.ACCOUNT_TAKEN, [])


async def test_onboarding_lists_the_new_account_only(platform: Platform, clouds: Clouds) -> None:
    for account_id in (ACCOUNT, SECOND_ACCOUNT):
        stored = await customers.add_cloud_account(platform, CUSTOMER, role(account_id))
        clouds.listed.clear()
        await inventory.discover(platform, CUSTOMER, stored)
        assert clouds.listed == [role(account_id).iam_role_arn]
    assert (await shown(platform, CUSTOMER))[2] == [f"i-{ACCOUNT}", f"i-{SECOND_ACCOUNT}"]
    clouds.listed.clear()
    await inventory.discover(platform, CUSTOMER)
    assert len(clouds.listed) == 2


async def test_account_of_a_deleted_customer_can_be_connected_by_another(platform: Platform) -> None:
    await customers.add_cloud_account(platform, OTHER, role())
    async with platform.database.transaction() as session:
        await session.delete(await session.get_one(models.Customer, OTHER))
    await customers.add_cloud_account(platform, CUSTOMER, role())
    assert await holders(platform) == {ACCOUNT: CUSTOMER}
