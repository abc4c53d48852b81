"""Writes to several stores of which one fails, and stores that are killed."""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from fixtures import aws, estates
from optiinfra.api.common import now
from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from optiinfra.domain.inventory import InventoryStatus
from optiinfra.domain.optimization import FINAL
from testbed import consistency
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.callers import bearer
from tests.helpers.cloud_state import HOURLY, HOURS_PER_MONTH
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.idle_shutdown import recommend, start_shutdown
from tests.helpers.kills import kill_and_wait_until_healthy
from tests.helpers.migration import UNAVAILABLE, retry, wait_for_optimization
from tests.helpers.outcomes import points_of, seed_outcome
from tests.helpers.own_environment import OwnEnvironment, own_environment
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.runtime import PlayedRuntime, connected_runtime, customer_without_fleet, deployment
from tests.helpers.stores import Stores

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]

STORES = ("postgresql", "clickhouse", "redis", "qdrant")
PROXIED = ("postgresql", "clickhouse", "qdrant")
RECOVERY_SECONDS = 60.0


@contextmanager
def reading(environment: dict[str, Any]) -> Iterator[Stores]:
    """Direct connections to the stores, past the proxies of a private platform."""
    connected = Stores(environment)
    try:
        yield connected
    finally:
        connected.close()


def clickhouse_rows(stores: Stores, customer: Customer) -> tuple[int, int]:
    """The number of the customer's samples and latency counts."""
    counts = [
        stores.clickhouse(f"SELECT count() FROM {table} WHERE customer_id = '{customer.id}'")[0]  # noqa: S608
        for table in ("samples", "latency_counts")
    ]
    return int(counts[0]), int(counts[1])


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, f"{answer.request.method} {answer.request.url.path}: {answer.text}"
    assert int(answer.headers["retry-after"]) > 0


def check_telemetry(platform: PrivatePlatform, stores: Stores, customer: Customer, runtime: PlayedRuntime) -> None:
    """A batch that was stored in part, or whose response was lost, is stored once after it is sent again."""
    ids = runtime.report(deployment("chat", ["i-1"], "g5.xlarge"))
    key, at = uuid.uuid4().hex, now()
    samples = [
        Sample(deployment_id=ids["chat"], metric="throughput", timestamp=at - timedelta(minutes=minute), value=1.0)
        for minute in range(7)
    ]
    latencies = [LatencyCount(deployment_id=ids["chat"], replica_id="r", timestamp=at, le=1.0, count=3)]
    body = TelemetryBatch.of(samples, latencies).model_dump(mode="json")
    for failure in ("cut", "refused"):
        with platform.proxies["clickhouse"].failing(failure):
            answer = runtime.http.post(f"{runtime.path}/telemetry", json=body, headers={"Idempotency-Key": key})
            assert_unavailable(answer)
    for _ in range(2):
        retry(lambda: runtime.send(samples, latencies, key=key))
    assert clickhouse_rows(stores, customer) == (7, 1)


def check_onboarding(platform: PrivatePlatform, stores: Stores, customer: Customer) -> None:
    """An account is connected with its first costs, or not at all."""
    (cloud,) = customer.seeded.clouds
    (instance_id,) = aws.start_instances(cloud_state.ec2(cloud), "g5.xlarge", 1, "on-demand", {"Name": "played"})
    path = f"/customers/{customer.id}/onboard"
    body = {"cloud_provider": "aws", "region": cloud.region, "iam_role_arn": cloud.role_arn}
    with platform.proxies["postgresql"].failing("refused"):
        assert_unavailable(customer.http.post(path, json=body))
    assert retry(customer.infrastructure).status == InventoryStatus.PENDING
    before = clickhouse_rows(stores, customer)
    with platform.proxies["clickhouse"].failing("refused"):
        customer.post(path, body)
        estate = wait_until(
            customer.infrastructure,
            "the account to be discovered without ClickHouse",
            RECOVERY_SECONDS,
            accept=lambda shown: shown.status == InventoryStatus.DISCOVERED,
        )
        assert [one.instance_id for one in estate.instances] == [instance_id]
        assert clickhouse_rows(stores, customer) == before
    costs = wait_until(
        lambda: customer.get(f"/customers/{customer.id}/metrics", metric_type="monthly_cost"),
        "the first costs",
        RECOVERY_SECONDS,
        transient=UNAVAILABLE,
    )
    cost = HOURLY["g5.xlarge", "on-demand"] * HOURS_PER_MONTH
    assert [point["value"] for point in costs] == [pytest.approx(cost, abs=0.01)]
    events = [event["event_type"] for event in customer.get(f"/customers/{customer.id}/events")]
    assert events == ["customer_onboarded", "infrastructure_discovered"]


def check_outcome(platform: PrivatePlatform, stores: Stores, customer: Customer) -> None:
    """An outcome that Qdrant could not take is there once Qdrant is back, and only then the optimization ends."""
    recommendation = recommend(customer)
    with platform.proxies["qdrant"].failing("refused"):
        approval = customer.post(f"/recommendations/{recommendation.id}/approve")
        optimization_id = approval["optimization_id"]
        query = "SELECT features, modelled, measured FROM outcomes WHERE optimization_id = %s"
        ((features, modelled, measured),) = wait_until(
            lambda: stores.sql(query, optimization_id), "the outcome in PostgreSQL", RECOVERY_SECONDS
        )
        assert customer.optimization(optimization_id).status not in FINAL
        assert points_of(stores, customer.id) == []
    optimization = customer.wait_for_optimization(optimization_id)
    assert optimization.status == "completed", optimization.result
    (point,) = points_of(stores, customer.id)
    assert len(point.vector) == len(features)
    # Qdrant may change the last digit of a number.
    assert point.payload["modelled"] == pytest.approx(modelled, rel=1e-12)
    assert point.payload["measured"] == pytest.approx(measured, rel=1e-12)
    assert stores.sql(query, optimization_id) == [(features, modelled, measured)]


def check_deletion(platform: PrivatePlatform, stores: Stores, customer: Customer, failing: str) -> None:
    """A deletion that a store interrupts is finished later; one that could not begin changes nothing."""
    seed_outcome(stores, customer.id, "spot_migration", [1.0] * 15, {"savings": 1.0}, {"savings": 1.0})
    ids, path = [customer.id, customer.seeded.email.partition("@")[0].rpartition("+")[2]], f"/customers/{customer.id}"
    admin = bearer(platform.document["credentials"]["admin_token"])
    with platform.proxies["postgresql"].failing("refused"):
        assert_unavailable(customer.http.delete(path, headers=admin))
    assert retry(lambda: customer.get(path))["id"] == customer.id
    assert {"qdrant", "postgresql public.outcomes"} <= stores.count_mentions(ids).keys()
    with platform.proxies[failing].failing("refused"):
        assert_unavailable(customer.http.delete(path, headers=admin))
        assert stores.sql("SELECT customer_id FROM customer_deletions") == [(customer.id,)]
        assert customer.http.get(path, headers=admin).status_code == 404, "half of a customer is shown"
    wait_until(
        lambda: stores.count_mentions(ids),
        f"the deletion to end after the outage of {failing}",
        RECOVERY_SECONDS,
        accept=lambda left: left == {},
    )
    assert customer.http.delete(path, headers=admin).status_code == 404


def check_failed_writes(environment: dict[str, Any]) -> None:
    """Each write to several stores is complete or absent after one of them failed."""
    idle = estates.load(ESTATES / "startup.yaml").model_copy(update={"deployments": []})
    changed = {"RECOVERY_SECONDS": "1"}
    with private_platform_over(environment, f"durability-{os.getpid()}", changed, proxied=PROXIED) as platform:
        document = platform.document
        with reading(direct(environment, document)) as stores:
            with customer_without_fleet(document) as customer, connected_runtime(customer) as runtime:
                check_telemetry(platform, stores, customer, runtime)
                check_onboarding(platform, stores, customer)
                check_deletion(platform, stores, customer, "clickhouse")
            with provisioned(document, idle) as customer:
                check_outcome(platform, stores, customer)
                check_deletion(platform, stores, customer, "qdrant")
        assert consistency.fetch(platform.described)["dangling"] == []


def direct(environment: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A private platform's document with the addresses of the engines themselves instead of the proxies'."""
    urls = dict(document["urls"])
    for store in PROXIED:
        through, engine = (httpx.URL(one["urls"][store].replace("+psycopg", "")) for one in (document, environment))
        urls[store] = document["urls"][store].replace(f":{through.port}", f":{engine.port}")
    return document | {"urls": urls}


def read_back(customer: Customer, stores: Stores, until: datetime, optimization_id: str) -> dict[str, Any]:
    """What was written, as the API and the stores show it; only of the telemetry that was complete at that time."""
    query = {"metric_type": "throughput", "end_time": until.isoformat(), "limit": 1000}
    counted = (
        f"SELECT count() FROM samples WHERE customer_id = '{customer.id}' AND timestamp <= {until.timestamp():.0f}"  # noqa: S608
    )
    return {
        "estate": customer.infrastructure(),
        "throughput": customer.get(f"/customers/{customer.id}/metrics", **query),
        "recommendations": customer.get(f"/customers/{customer.id}/recommendations"),
        "optimization": customer.optimization(optimization_id),
        "events": customer.get(f"/customers/{customer.id}/events", limit=1000),
        "samples": stores.clickhouse(counted),
        "outcomes": stores.sql("SELECT * FROM outcomes"),
        "points": [(point.id, point.payload, point.vector) for point in points_of(stores, customer.id)],
    }


def agents_are_active(own: OwnEnvironment) -> bool:
    admin = bearer(own.document["credentials"]["admin_token"])
    listed = httpx.get(f"{own.document['urls']['orchestrator']}/orchestrator/agents", headers=admin)
    listed.raise_for_status()
    return len(listed.json()) == 4 and all(agent["status"] == "active" for agent in listed.json())


def check_killed_stores() -> None:
    """Each store is killed and restarted, and everything is as before."""
    estate = estates.load(ESTATES / "startup.yaml")
    estate = estate.model_copy(update={"deployments": estate.deployments[:1]})
    with own_environment(f"killed-{os.getpid()}") as own, provisioned(own.document, estate) as customer:
        optimization = wait_for_optimization(customer, start_shutdown(customer))
        assert optimization.status == "completed", optimization.result
        until = now() - timedelta(minutes=30)

        def seen() -> dict[str, Any]:
            with reading(own.document) as stores:
                return read_back(customer, stores, until, optimization.id)

        before = seen()
        assert all(before.values()), "there is nothing of some kind that could be lost"
        for store in STORES:
            kill_and_wait_until_healthy(own.name, store)
            after = retry(seen)
            assert {name: after[name] for name in before if after[name] != before[name]} == {}, f"{store} was killed"
        wait_until(lambda: agents_are_active(own), "all agents to be active", 30, transient=(httpx.HTTPError,))
        assert customer.analyze("cost").keys() == {"chat"}
        found = own.invoke("check-consistency", "--json")
        assert found.returncode == 0, found.stdout


@pytest.mark.slow
def test_failed_writes_leave_nothing_half_done_and_killed_stores_lose_nothing(environment: dict[str, Any]) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:  # each in a platform of its own, and mostly waiting
        checks = [pool.submit(check_failed_writes, environment), pool.submit(check_killed_stores)]
    for check in checks:
        check.result()
