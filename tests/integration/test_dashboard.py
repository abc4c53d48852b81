"""The dashboard equals what the stores and the clouds say: each figure is computed again from them."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from testbed.waiting import stretched, wait_until
from tests.helpers.accounts import Account, signed_up
from tests.helpers.callers import bearer, call
from tests.helpers.manual_runtime import ManualRuntime, deployment
from tests.helpers.owned_account import OwnedAccount, owned_account
from tests.helpers.seeds import Seeds, seeded
from tests.helpers.stores import Stores

pytestmark = pytest.mark.integration

SPAN = timedelta(days=8)
"""How far back the series go."""
AGENT_PARTS = {
    "cost": "cost-agent",
    "performance": "performance-agent",
    "resource": "resource-agent",
    "application": "application-agent",
}
MORE_THAN_A_PAGE = 101
"""Lists of the API have 100 entries unless more are asked for."""


@dataclass(frozen=True)
class Shown:
    """A customer whose dashboard is read, as its owner."""

    environment: dict[str, Any]
    http: httpx.Client
    owner: Account
    token: str

    def dashboard(self) -> dict[str, Any]:
        """The dashboard's JSON, from the portal."""
        address = f"{self.environment['urls']['portal']}/portal/customers/{self.owner.customer_id}/dashboard"
        answer = httpx.get(address, headers=bearer(self.token), timeout=stretched(15))
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def analyze(self) -> None:
        """Run an analysis, which reads the clouds again; the resource agent recommends nothing."""
        path = f"/customers/{self.owner.customer_id}/analyze"
        analysis_id = call(self.http, "POST", path, self.token, {"agent_type": "resource"})["analysis_id"]
        ended = wait_until(
            lambda: call(self.http, "GET", f"/analyses/{analysis_id}", self.token),
            f"analysis {analysis_id}",
            30,
            accept=lambda analysis: analysis["status"] != "started",
        )
        assert ended["status"] == "completed", ended


@contextmanager
def shown(environment: dict[str, Any], http: httpx.Client) -> Iterator[Shown]:
    """A new customer without anything."""
    with signed_up(environment) as owner:
        yield Shown(environment, http, owner, owner.sign_in(http)["access_token"])


def test_dashboard_equals_what_stores_and_clouds_say(environment: dict[str, Any]) -> None:
    with (
        httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=stretched(15)) as http,
        owned_account(environment) as account,
        shown(environment, http) as customer,
        shown(environment, http) as other,
        seeded(environment, customer.owner.customer_id) as seeds,
    ):
        check_nothing_known(customer)
        runtime = ManualRuntime(http, customer.owner.customer_id, customer.token)
        check_spend(customer, account, runtime, seeds)
        check_recommendations(customer, seeds)
        check_optimizations(customer, seeds)
        check_series(customer, runtime, other)
        check_agents(customer)
        check_nothing_known(other)
        check_who_may_read(customer, other)


def check_nothing_known(customer: Shown) -> None:
    """A customer of whom nothing is known sees zeros and empty lists, whatever others have."""
    document = customer.dashboard()
    assert document.pop("agents")
    assert document == {
        "current_spend": 0.0,
        "potential_savings": 0.0,
        "realized_savings": 0.0,
        "active_optimizations": [],
        "recommendations": [],
        "series": {"monthly_cost": [], "p95_latency_ms": [], "quality_score": []},
    }


def check_spend(customer: Shown, account: OwnedAccount, runtime: ManualRuntime, seeds: Seeds) -> None:
    """The spend is the price of what runs, on demand and on spot, used or idle; what has gone is not counted."""
    serving = account.start("g5.xlarge", 2)
    account.start("g5.xlarge", 1, "spot")
    to_stop, to_terminate, idle = (account.start(kind) for kind in ("g6.12xlarge", "g5.12xlarge", "g5.12xlarge"))
    account.start("t3.micro")  # a type without a known price
    runtime.deployments = [deployment("chat", serving, "g5.xlarge")]
    runtime.report()
    gone = seeds.recommendation(*to_terminate, savings=4000.0)
    kept = seeds.recommendation(*idle, savings=1000.0)
    account.connect(customer.http, customer.owner.customer_id, customer.token)
    before = customer.dashboard()
    assert before["current_spend"] == account.monthly_cost() > 0
    assert before["potential_savings"] == 5000.0

    account.ec2.stop_instances(InstanceIds=to_stop)
    account.ec2.terminate_instances(InstanceIds=to_terminate)
    account.start("g6.12xlarge", 1, "spot")
    customer.analyze()
    after = customer.dashboard()
    assert after["current_spend"] == account.monthly_cost() != before["current_spend"]
    assert after["potential_savings"] == 1000.0
    assert {one["id"]: one["status"] for one in after["recommendations"]} == {gone: "superseded", kept: "pending"}
    assert [point["value"] for point in after["series"]["monthly_cost"]] == [
        before["current_spend"],
        after["current_spend"],
    ]


def check_recommendations(customer: Shown, seeds: Seeds) -> None:
    """Potential savings are those of what can be approved now: pending, and approved by every validator."""
    counted = customer.dashboard()["potential_savings"]
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

    document = customer.dashboard()

    listed = {one["id"]: one["status"] for one in document["recommendations"]}
    assert expected.items() <= listed.items()
    assert len(listed) == len(document["recommendations"]) == len(expected) + 2 > MORE_THAN_A_PAGE
    assert document["potential_savings"] == counted + 2.5 + 0.25


def check_optimizations(customer: Shown, seeds: Seeds) -> None:
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

    document = customer.dashboard()

    assert {one["id"]: one["status"] for one in document["active_optimizations"]} == active
    assert document["realized_savings"] == 12.75 + MORE_THAN_A_PAGE * 0.5


def check_series(customer: Shown, runtime: ManualRuntime, other: Shown) -> None:
    """Each point is the mean over replicas, then over deployments, of the samples of one moment in ClickHouse."""
    (chat,) = runtime.deployments
    runtime.deployments = [chat, deployment("summaries", ["i-12"], "g5.xlarge")]
    ids = runtime.report()
    now = datetime.now(UTC).replace(microsecond=0)
    for metric, scale in (("p95_latency_ms", 1000.0), ("quality_score", 0.5)):
        runtime.send(
            metric,
            [
                (ids["chat"], "chat-0", now - timedelta(minutes=2), 1.0 * scale),
                (ids["chat"], "chat-1", now - timedelta(minutes=2), 1.5 * scale),
                (ids["summaries"], "", now - timedelta(minutes=2), 2.0 * scale),
                (ids["chat"], "", now - timedelta(minutes=1), 1.75 * scale),
                (ids["chat"], "", now - SPAN + timedelta(minutes=5), 1.25 * scale),
                (ids["chat"], "", now - SPAN - timedelta(minutes=5), 8.0 * scale),
            ],
        )
        foreign = ManualRuntime(other.http, other.owner.customer_id, other.token)
        foreign.send("throughput", [(ids["chat"], "", now - timedelta(minutes=2), 9.0)])
    stores = Stores(customer.environment)
    try:
        document = customer.dashboard()
        for metric in ("monthly_cost", "p95_latency_ms", "quality_score"):
            expected = recomputed(stores, customer.owner.customer_id, metric, now - SPAN)
            points = document["series"][metric]
            assert [(point["timestamp"], point["value"]) for point in points] == expected, metric
            assert {point["resource_id"] for point in points} == {customer.owner.customer_id}
            scores = [point["value"] if metric == "quality_score" else None for point in points]
            assert [point["score"] for point in points] == scores
        assert [point["value"] for point in document["series"]["p95_latency_ms"]] == [1250.0, 1625.0, 1750.0]
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


def check_agents(customer: Shown) -> None:
    """The environment's agents are active; one that lost its presence is unhealthy, one that deregistered is gone."""
    urls, secret = customer.environment["urls"], customer.environment["credentials"]["enrolment_secret"]
    listed = customer.dashboard()["agents"]
    active = {(one["agent_type"], one["base_url"]) for one in listed if one["status"] == "active"}
    assert {(kind, urls[part]) for kind, part in AGENT_PARTS.items()} <= active

    address = f"http://{customer.owner.customer_id.replace('_', '-')}.invalid"
    body = {"agent_type": "resource", "version": "7", "capabilities": [], "hostname": "h", "base_url": address}
    agent = call(customer.http, "POST", "/orchestrator/agents/register", secret, body)
    itself = f"/orchestrator/agents/{agent['agent_id']}"

    def status() -> str | None:
        mine = [one["status"] for one in customer.dashboard()["agents"] if one["agent_id"] == agent["agent_id"]]
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


def check_who_may_read(customer: Shown, other: Shown) -> None:
    """Another customer is told what an unknown one would be; nobody reads without a credential."""
    portal = customer.environment["urls"]["portal"]

    def read(customer_id: str, token: str | None) -> httpx.Response:
        headers = {} if token is None else bearer(token)
        return httpx.get(f"{portal}/portal/customers/{customer_id}/dashboard", headers=headers, timeout=stretched(15))

    own, unknown = customer.owner.customer_id, "cust_000000000000000000000000"
    answers = [read(own, other.token), read(unknown, other.token)]
    assert [answer.status_code for answer in answers] == [404, 404]
    first, second = ({key: text for key, text in one.json().items() if key != "trace_id"} for one in answers)
    assert first == second
    assert [read(own, token).status_code for token in (None, "garbage")] == [401, 401]
