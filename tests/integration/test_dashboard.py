"""The dashboard equals what the stores and the clouds say: each figure is computed again from them."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import httpx
import pytest

from fixtures import aws
from fixtures.estates.schema import Lifecycle
from optiinfra.api.telemetry import Sample
from optiinfra.domain.recommendation import AgentType
from testbed.waiting import stretched
from tests.helpers import cloud_state
from tests.helpers.agents import own_agents
from tests.helpers.callers import call, problem, unused_address
from tests.helpers.customer import Customer
from tests.helpers.runtime import PlayedRuntime, connected_runtime, customer_without_fleet, deployment
from tests.helpers.seeds import Seeds, seeded
from tests.helpers.stores import Stores

pytestmark = pytest.mark.integration

SPAN = timedelta(days=8)
"""How far back the series go."""
UNPRICED = "p3.2xlarge"
"""An instance type that is not in the price book."""
MORE_THAN_A_PAGE = 101
"""Lists of the API have 100 entries unless more are asked for."""


@pytest.mark.slow
def test_dashboard_equals_what_stores_and_clouds_say(environment: dict[str, Any]) -> None:
    with (
        customer_without_fleet(environment) as customer,
        customer_without_fleet(environment) as other,
        connected_runtime(customer) as runtime,
        connected_runtime(other) as foreign,
        seeded(environment, customer.id) as seeds,
    ):
        check_nothing_known(customer)
        check_spend(customer, runtime, seeds)
        check_recommendations(customer, seeds)
        check_optimizations(customer, seeds)
        check_series(customer, runtime, foreign)
        check_agents(customer)
        check_nothing_known(other)
        check_who_may_read(customer, other)


def dashboard(customer: Customer) -> dict[str, Any]:
    """The dashboard's JSON, from the portal."""
    answer = read_dashboard(customer, customer.id)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def read_dashboard(reader: Customer, customer_id: str, authorization: str | None = None) -> httpx.Response:
    """The portal's answer to a reader, with another credential if one is given."""
    address = f"{reader.environment['urls']['portal']}/portal/customers/{customer_id}/dashboard"
    given = reader.http.headers["authorization"] if authorization is None else authorization
    return httpx.get(address, headers={"authorization": given}, timeout=stretched(15))


def check_nothing_known(customer: Customer) -> None:
    """A customer of whom nothing is known sees zeros and empty lists, whatever others have."""
    document = dashboard(customer)
    assert document.pop("agents")
    assert document == {
        "current_spend": 0.0,
        "unpriced_instances": 0,
        "potential_savings": 0.0,
        "realized_savings": 0.0,
        "active_optimizations": [],
        "recommendations": [],
        "series": {"monthly_cost": [], "p95_latency_ms": [], "quality_score": []},
    }


def check_spend(customer: Customer, runtime: PlayedRuntime, seeds: Seeds) -> None:
    """The spend is the price of what runs, on demand and on spot, used or idle; what has gone is not counted."""
    ec2 = cloud_state.ec2(customer.seeded.clouds[0])

    def start(instance_type: str, count: int = 1, lifecycle: Lifecycle = "on-demand") -> list[str]:
        return aws.start_instances(ec2, instance_type, count, lifecycle, {"Name": "test"})

    serving = start("g5.xlarge", 2)
    start("g5.xlarge", 1, "spot")
    to_stop, to_terminate, idle = start("g6.12xlarge"), start("g5.12xlarge"), start("g5.12xlarge")
    start(UNPRICED, 2)
    runtime.report(deployment("chat", serving, "g5.xlarge"))
    gone = seeds.recommendation(*to_terminate, savings=4000.0)
    kept = seeds.recommendation(*idle, savings=1000.0)
    customer.onboard()
    before = dashboard(customer)
    assert before["current_spend"] == true_cost(customer) > 0
    assert before["unpriced_instances"] == 2
    assert before["potential_savings"] == 5000.0

    ec2.stop_instances(InstanceIds=to_stop)
    ec2.terminate_instances(InstanceIds=to_terminate)
    start("g6.12xlarge", 1, "spot")
    assert customer.analyze("resource") == {}  # reads the cloud again
    after = dashboard(customer)
    assert after["current_spend"] == true_cost(customer) != before["current_spend"]
    assert after["potential_savings"] == 1000.0
    assert {one["id"]: one["status"] for one in after["recommendations"]} == {gone: "superseded", kept: "pending"}
    assert [point["value"] for point in after["series"]["monthly_cost"]] == [
        before["current_spend"],
        after["current_spend"],
    ]


def true_cost(customer: Customer) -> float:
    """Dollars a month of what runs in the cloud, each instance in whole cents, without those of no known price."""
    priced = [kind for kind in cloud_state.running(customer.seeded) if kind[0] != UNPRICED]
    return round(sum(round(cloud_state.HOURLY[kind] * cloud_state.HOURS_PER_MONTH, 2) for kind in priced), 2)


def check_recommendations(customer: Customer, seeds: Seeds) -> None:
    """Potential savings are those of what can be approved now: pending, and approved by every validator."""
    counted = dashboard(customer)["potential_savings"]
    expected = {
        seeds.recommendation("i-1", savings=2.5, age=60.0): "pending",
        seeds.recommendation("i-2", agent="performance", savings=0.25): "pending",
        seeds.recommendation("i-3", savings=10.0, verdicts={}): "pending",
        seeds.recommendation("i-4", savings=20.0, verdicts={"performance": True}): "pending",
        seeds.recommendation("i-5", savings=40.0, verdicts={"performance": False}, status="rejected"): "rejected",
        seeds.recommendation("i-6", savings=80.0, verdicts={"performance": True, "application": False}): "pending",
        seeds.recommendation("i-7", savings=160.0, expires_in=-1.0): "expired",
        seeds.recommendation("i-8", savings=320.0, type="commitment"): "pending",
    }
    for number, status in enumerate(("approved", "rejected", "executing", "completed", "failed", "rolled_back")):
        expected[seeds.recommendation("i-9", savings=640.0 * 2**number, status=status)] = status
    expected |= {seeds.recommendation("i-10", savings=1.0, status="superseded"): "superseded" for _ in range(100)}

    document = dashboard(customer)

    listed = {one["id"]: one["status"] for one in document["recommendations"]}
    assert expected.items() <= listed.items()
    assert len(listed) == len(document["recommendations"]) == len(expected) + 2 > MORE_THAN_A_PAGE
    assert document["potential_savings"] == counted + 2.5 + 0.25


def check_optimizations(customer: Customer, seeds: Seeds) -> None:
    """Realized savings are the measured ones of completed optimizations; active ones are those that have not ended."""

    def seed(status: str, **result: Any) -> str:
        return seeds.optimization(seeds.recommendation("i-11", status="completed"), status, **result)

    active = {seed(status): status for status in ("pending", "running", "rolling_back")}
    active[seed("rolling_back", success=True, savings=100.0)] = "rolling_back"
    for result in ({"success": True, "savings": 12.5}, {"success": True, "savings": 0.25}):
        seed("completed", **result)
    seed("completed", success=True)  # done, but not measured
    seed("completed", success=False, savings=200.0)
    for status in ("rolled_back", "failed"):
        seed(status, success=False, savings=400.0)
    for _ in range(MORE_THAN_A_PAGE):
        seed("completed", success=True, savings=0.5)

    document = dashboard(customer)

    assert {one["id"]: one["status"] for one in document["active_optimizations"]} == active
    assert document["realized_savings"] == 12.75 + MORE_THAN_A_PAGE * 0.5


def check_series(customer: Customer, runtime: PlayedRuntime, foreign: PlayedRuntime) -> None:
    """Each point is the mean over replicas, then over deployments, of the samples of one moment in ClickHouse."""
    (chat,) = runtime.deployments
    ids = runtime.report(chat, deployment("summaries", ["i-12"], "g5.xlarge"))
    now = datetime.now(UTC).replace(microsecond=0)

    def sample(metric: str, name: str, replica: str, ago: timedelta, value: float) -> Sample:
        return Sample(deployment_id=ids[name], replica_id=replica, metric=metric, timestamp=now - ago, value=value)

    recently, minute = timedelta(minutes=2), timedelta(minutes=1)

    def figures(metric: str, scale: float) -> list[Sample]:
        return [
            sample(metric, "chat", "rep-1", recently, 1.0 * scale),
            sample(metric, "chat", "rep-2", recently, 1.5 * scale),
            sample(metric, "summaries", "", recently, 2.0 * scale),
            sample(metric, "chat", "", minute, 1.75 * scale),
            sample(metric, "chat", "", SPAN - minute, 1.25 * scale),
            sample(metric, "chat", "", SPAN + minute, 8.0 * scale),
        ]

    runtime.send(figures("p95_latency_ms", 1000.0))
    theirs = foreign.report(deployment("chat", ["i-1"], "g5.xlarge"))
    foreign.send([Sample(deployment_id=theirs["chat"], metric="throughput", timestamp=now - recently, value=9.0)])
    stores = Stores(customer.environment)
    try:
        stores.insert_samples(customer.id, figures("quality_score", 0.5))
        series = dashboard(customer)["series"]
        for metric, points in series.items():
            expected = recomputed(stores, customer.id, metric, now - SPAN)
            assert [(point["timestamp"], point["value"]) for point in points] == expected, metric
            assert {point["resource_id"] for point in points} == {customer.id}
            scores = [point["value"] if metric == "quality_score" else None for point in points]
            assert [point["score"] for point in points] == scores
        assert [point["value"] for point in series["p95_latency_ms"]] == [1250.0, 1625.0, 1750.0]
        assert [point["value"] for point in series["quality_score"]] == [0.625, 0.8125, 0.875]
    finally:
        stores.close()


def recomputed(stores: Stores, customer_id: str, metric: str, since: datetime) -> list[tuple[str, float]]:
    """The series of a customer's estate, from every stored sample; costs of the estate are stored as such."""
    own = " AND deployment_id = ''" if metric == "monthly_cost" else ""
    rows = stores.clickhouse(
        f"SELECT toUnixTimestamp64Milli(timestamp), deployment_id, value FROM samples "  # noqa: S608
        f"WHERE customer_id = '{customer_id}' AND metric = '{metric}'{own} FORMAT TabSeparated"
    )
    moments: defaultdict[int, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        milliseconds, deployment_id, value = row.split("\t")
        moments[int(milliseconds)][deployment_id].append(float(value))
    means = {
        moment: [sum(values) / len(values) for values in deployments.values()]
        for moment, deployments in moments.items()
        if moment >= since.timestamp() * 1000
    }
    return [(written(moment), sum(means[moment]) / len(means[moment])) for moment in sorted(means)]


def written(milliseconds: int) -> str:
    """A moment as the API writes it."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def check_agents(customer: Customer) -> None:
    """The environment's agents are active; one that lost its presence is unhealthy, one that deregistered is gone."""
    secret = customer.environment["credentials"]["enrolment_secret"]
    listed = dashboard(customer)["agents"]
    active = {(one["agent_type"], one["agent_id"]) for one in listed if one["status"] == "active"}
    own = own_agents(customer.environment)
    assert own.keys() == set(get_args(AgentType))
    assert own.items() <= active
    assert {(one["hostname"], one["base_url"]) for one in listed} == {(None, None)}

    body = {"agent_type": "resource", "version": "7", "capabilities": [], "hostname": "h", "base_url": unused_address()}
    agent = call(customer.http, "POST", "/orchestrator/agents/register", secret, body)
    itself = f"/orchestrator/agents/{agent['agent_id']}"

    def status() -> str | None:
        mine = [one["status"] for one in dashboard(customer)["agents"] if one["agent_id"] == agent["agent_id"]]
        assert len(mine) <= 1
        return mine[0] if mine else None

    stores = Stores(customer.environment)
    try:
        beat = {"status": "active", "current_tasks": 1, "load": 0.5}
        call(customer.http, "POST", f"{itself}/heartbeat", agent["agent_secret"], beat)
        assert status() == "active"
        stores.redis.delete(f"{stores.namespace}:agent:{agent['agent_id']}")
        assert status() == "unhealthy"
    finally:
        call(customer.http, "DELETE", itself, agent["agent_secret"])
        stores.close()
    assert status() is None


def check_who_may_read(customer: Customer, other: Customer) -> None:
    """Another customer is told what an unknown one would be; nobody reads without a credential."""
    own, unknown = read_dashboard(other, customer.id), read_dashboard(other, "cust_000000000000000000000000")
    assert problem(own) == problem(unknown) == (404, "not_found", "no such customer")
    assert [read_dashboard(customer, customer.id, one).status_code for one in ("", "Bearer garbage")] == [401, 401]
