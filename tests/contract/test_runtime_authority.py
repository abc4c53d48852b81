"""What a runtime may speak for: its own id, its customer's deployments and instances, and each key's one batch."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cachetools import LRUCache
from sqlalchemy import delete, select, update

from optiinfra.api.common import now
from optiinfra.api.customers import DiscoveredDeployment, Replica, Slo
from optiinfra.api.runtimes import MOST_DEPLOYMENTS
from optiinfra.api.telemetry import RUNTIME_METRICS, LatencyCount, Sample, TelemetryBatch
from optiinfra.domain.inventory import CloudAccountStatus
from optiinfra.orchestrator.errors import Conflict, Invalid, NotFound
from optiinfra.orchestrator.idempotency import KEYS_KEPT, digest_of
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes import service as runtimes
from optiinfra.orchestrator.telemetry import service as telemetry
from optiinfra.orchestrator.telemetry.parsing import Columns
from optiinfra.orchestrator.telemetry.service import BatchKey
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER
from tests.unit.logs import logged

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]

OTHER = "cust_2"


class Inserted:
    """The telemetry's writer: the values of all samples that were inserted."""

    def __init__(self) -> None:
        self.values: list[float] = []

    async def insert_columns(self, table: str, columns: list[list[Any]], _token: str | None) -> None:
        self.values += columns[-1] if table == "samples" and columns else []


def agent_token(token_id: str, owner: str) -> models.AgentToken:
    return models.AgentToken(id=token_id, customer_id=owner, token_hash=f"hash of {token_id}", expires_at=now())


@pytest.fixture
def inserted() -> Inserted:
    return Inserted()


@pytest.fixture
async def platform(database: Database, customer: None, inserted: Inserted) -> Platform:
    """Two customers, each with a token, and a deployment `chat`."""
    async with database.transaction() as session:
        session.add(models.Customer(id=OTHER, company_name="x", plan="pro", preferences={}))
        await session.flush()
        for owner in (CUSTOMER, OTHER):
            session.add(agent_token(f"token_{owner}", owner))
    described = SimpleNamespace(database=database, telemetry=inserted, known_runtimes=LRUCache(100))
    return cast("Platform", described)


Reported = tuple[dict[str, str], list[str]]
"""Ids of the deployments by name, and unknown instances."""


async def report(platform: Platform, owner: str, *deployments: DiscoveredDeployment) -> Reported:
    async with platform.database.transaction() as session:
        return await inventory.store_deployments(session, owner, list(deployments))


def deployment(name: str, *instance_ids: str) -> DiscoveredDeployment:
    return DiscoveredDeployment(
        name=name,
        model="m",
        provider="aws",
        region="us-east-1",
        engine_args={},
        weights={},
        slo=Slo(p95_latency_ms=1000, quality=0.9),
        interruptible=True,
        replicas=[
            Replica(replica_id=f"rep_{one}", instance_id=one, instance_type="g5.xlarge", state="ready")
            for one in instance_ids
        ],
    )


def batch(value: float, *deployment_ids: str, metric: str = "throughput") -> Columns:
    samples = [Sample(deployment_id=one, metric=metric, timestamp=now(), value=value) for one in deployment_ids]
    return Columns.of(TelemetryBatch.of(samples))


async def test_runtime_id_is_found_only_with_the_token_that_it_connected_with(platform: Platform) -> None:
    mine, theirs = f"token_{CUSTOMER}", f"token_{OTHER}"
    async with platform.database.transaction() as session:
        session.add(agent_token("token_second", CUSTOMER))
    runtime = (await runtimes.connect(platform, CUSTOMER, mine, "host", "1")).runtime_id
    for _ in range(2):  # the second time from memory
        await runtimes.require_runtime(platform, mine, runtime)
    for token in (theirs, "token_second", "token_unknown"):
        with pytest.raises(NotFound, match="no such runtime"):
            await runtimes.require_runtime(platform, token, runtime)
    with pytest.raises(NotFound, match="no such runtime"):
        await runtimes.require_runtime(platform, mine, "runtime_unknown")


async def test_telemetry_of_deployments_that_the_customer_lacks_is_refused_by_their_ids(
    platform: Platform, inserted: Inserted
) -> None:
    ids, _ = await report(platform, CUSTOMER, deployment("chat"), deployment("old"))
    theirs, _ = await report(platform, OTHER, deployment("chat"))
    await report(platform, CUSTOMER, deployment("chat"))
    for unknown in ("dep_unknown", theirs["chat"], ids["old"], "", f"{ids['chat']} "):
        with pytest.raises(NotFound) as refused:
            await telemetry.store(platform, CUSTOMER, batch(1.0, ids["chat"], unknown), None)
        assert refused.value.extra == {"deployment_ids": [unknown]}
        assert refused.value.detail == f"no such deployment: {unknown}"
    counts = [LatencyCount(deployment_id=theirs["chat"], replica_id="r", timestamp=now(), le=1.0, count=1)]
    with pytest.raises(NotFound):
        await telemetry.store(platform, CUSTOMER, Columns.of(TelemetryBatch(latencies=counts)), None)
    many = [f"dep_{number:03}" for number in range(30)]
    with pytest.raises(NotFound) as refused:
        await telemetry.store(platform, CUSTOMER, batch(1.0, *many), None)
    assert refused.value.extra == {"deployment_ids": many[:20]}
    with pytest.raises(NotFound) as refused:
        await telemetry.store(platform, CUSTOMER, batch(1.0, *(f"{number:0200}" for number in range(30))), None)
    assert len(refused.value.detail) + len(str(refused.value.extra)) < 1000
    assert refused.value.extra == {"deployment_ids": [f"{number:0200}" for number in range(2)]}
    assert inserted.values == []

    await report(platform, CUSTOMER, deployment("chat"), deployment("old"))
    await telemetry.store(platform, CUSTOMER, batch(2.0, *ids.values()), None)
    assert inserted.values == [2.0, 2.0]


@pytest.mark.parametrize("metric", ["monthly_cost", "quality_score", "Throughput", "throughput ", "x"])
async def test_metric_that_runtimes_do_not_measure_is_refused_by_name(
    platform: Platform, inserted: Inserted, metric: str
) -> None:
    ids, _ = await report(platform, CUSTOMER, deployment("chat"))
    with pytest.raises(Invalid, match=f"may not send {metric};"):
        await telemetry.store(platform, CUSTOMER, batch(1.0, ids["chat"], metric=metric), None)
    assert inserted.values == []
    for accepted in sorted(RUNTIME_METRICS):
        await telemetry.store(platform, CUSTOMER, batch(1.0, ids["chat"], metric=accepted), None)
    assert len(inserted.values) == 10


async def test_key_belongs_to_the_first_body_that_was_stored_under_it(platform: Platform, inserted: Inserted) -> None:
    ids, _ = await report(platform, CUSTOMER, deployment("chat"))
    theirs, _ = await report(platform, OTHER, deployment("chat"))
    first, second = BatchKey("key", digest_of(b"1")), BatchKey("key", digest_of(b"2"))
    with pytest.raises(NotFound):  # what is refused does not use the key up
        await telemetry.store(platform, CUSTOMER, batch(9.0, "dep_unknown"), second)
    for _ in range(3):
        await telemetry.store(platform, CUSTOMER, batch(1.0, ids["chat"]), first)
    with pytest.raises(Invalid, match="used for another batch"):
        await telemetry.store(platform, CUSTOMER, batch(2.0, ids["chat"]), second)
    await telemetry.store(platform, OTHER, batch(3.0, theirs["chat"]), second)
    assert inserted.values == [1.0, 3.0]
    # Also when its deployment is gone meanwhile: the batch is stored already.
    await report(platform, CUSTOMER)
    await telemetry.store(platform, CUSTOMER, batch(1.0, ids["chat"]), first)


async def test_keys_are_forgotten_when_they_are_too_old(platform: Platform, inserted: Inserted) -> None:
    ids, _ = await report(platform, CUSTOMER, deployment("chat"))
    table, limit, minute = models.TelemetryKey, now() - KEYS_KEPT, timedelta(minutes=1)
    for key, created in (("old", limit - minute), ("kept", limit + minute)):
        await telemetry.store(platform, CUSTOMER, batch(1.0, ids["chat"]), BatchKey(key, digest_of(b"1")))
        async with platform.database.transaction() as session:
            await session.execute(update(table).where(table.key == key).values(created_at=created))
    await telemetry.forget_old_batches(platform.database)
    async with platform.database.transaction() as session:
        assert list(await session.scalars(select(table.key))) == ["kept"]


async def test_batch_of_a_customer_deleted_meanwhile_is_refused(platform: Platform, inserted: Inserted) -> None:
    ids, _ = await report(platform, CUSTOMER, deployment("chat"))
    async with platform.database.transaction() as session:
        await session.execute(delete(models.Customer).where(models.Customer.id == CUSTOMER))
    with pytest.raises(NotFound):
        await telemetry.store(platform, CUSTOMER, batch(1.0, ids["chat"]), BatchKey("key", digest_of(b"1")))


async def add_instance(platform: Platform, owner: str, instance_id: str) -> None:
    async with platform.database.transaction() as session:
        account = models.CloudAccount(
            id=f"acc_{owner}",
            customer_id=owner,
            provider="aws",
            region="us-east-1",
            role_arn="arn",
            account_id=None,
            status=CloudAccountStatus.DISCOVERED,
        )
        session.add(account)
        await session.flush()
        session.add(
            models.Instance(
                customer_id=owner,
                instance_id=instance_id,
                cloud_account_id=account.id,
                provider="aws",
                region="us-east-1",
                instance_type="g5.xlarge",
                lifecycle="on-demand",
                state="running",
                monthly_cost=100.0,
                seen_at=now(),
            )
        )
        session.add(models.Runtime(id=f"runtime_{owner}", customer_id=owner, hostname="h", version="1"))


async def test_instance_of_another_customer_is_reported_and_hosts_nothing(platform: Platform) -> None:
    await add_instance(platform, CUSTOMER, "i-mine")
    await add_instance(platform, OTHER, "i-theirs")
    await report(platform, OTHER)
    with logged(inventory) as logs:
        ids, unknown = await report(platform, CUSTOMER, deployment("chat", "i-mine", "i-theirs", "i-nobody"))
    assert unknown == ["i-nobody", "i-theirs"]
    (warning,) = logs
    assert (warning["log_level"], warning["customer_id"]) == ("warning", CUSTOMER)
    assert warning["instances"] == unknown
    estate = await inventory.describe(platform.database, CUSTOMER)
    assert [one.instance_id for one in estate.instances_of(estate.deployment(ids["chat"]))] == ["i-mine"]
    theirs = await inventory.describe(platform.database, OTHER)
    assert [(one.instance_id, one.idle_since is None) for one in theirs.instances] == [("i-theirs", False)]
    async with platform.database.transaction() as session:
        with pytest.raises(Conflict, match="no connected cloud account has i-theirs"):
            await inventory.account_of(session, CUSTOMER, ["i-mine", "i-theirs"])
    with logged(inventory) as logs:
        assert (await report(platform, CUSTOMER, deployment("chat", "i-mine")))[1] == []
    assert logs == []


async def test_deployments_are_limited_with_those_that_are_gone(platform: Platform) -> None:
    most = [deployment(f"chat-{number}") for number in range(MOST_DEPLOYMENTS)]
    ids, _ = await report(platform, CUSTOMER, *most)
    assert len(ids) == MOST_DEPLOYMENTS
    with pytest.raises(Conflict, match=r"5,001 deployments.*the limit is 5,000") as refused:
        await report(platform, CUSTOMER, deployment("one more"))
    assert refused.value.code == "too_many_deployments"
    again, _ = await report(platform, CUSTOMER, deployment("chat-0"), deployment("chat-0", "i-1"))
    assert again == {"chat-0": ids["chat-0"]}
    await report(platform, OTHER, deployment("chat"))
