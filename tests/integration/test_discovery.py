"""Discovery of instances and deployments, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from fixtures import aws, estates
from fixtures.aws import Accounts
from fixtures.estates import Estate
from optiinfra.api.customers import Infrastructure
from optiinfra.domain.inventory import InventoryStatus
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.cloud_state import HOURLY, HOURS_PER_MONTH
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer

pytestmark = pytest.mark.integration

REGION = "us-east-1"
TAGS = {"Name": "launched by the owner"}
UNPRICED = "p3.2xlarge"
"""An instance type that is not in the price book."""
DISCOVERY_SECONDS = 30.0
RUNTIME_SECONDS = 30.0

Shown = tuple[str, str, str, float | None]
"""Type, lifecycle, state, and dollars a month."""


def running(instance_type: str, lifecycle: str = "on-demand") -> Shown:
    """A running instance at the price that the test knows."""
    return instance_type, lifecycle, "running", round(HOURLY[instance_type, lifecycle] * HOURS_PER_MONTH, 2)


def without_cost(instance_type: str, state: str, lifecycle: str = "on-demand") -> Shown:
    return instance_type, lifecycle, state, 0.0


@dataclass
class Account:
    """The customer, and what the platform must show of the customer's account."""

    customer: Customer
    instances: dict[str, Shown] = field(default_factory=dict)

    @property
    def ec2(self) -> Any:
        return cloud_state.ec2(self.customer.seeded.clouds[0])

    def launch(self, instance_type: str, lifecycle: Any = "on-demand") -> str:
        (instance_id,) = aws.start_instances(self.ec2, instance_type, 1, lifecycle, TAGS)
        return instance_id

    def discover(self) -> Infrastructure:
        """Have the account listed again."""
        customer = self.customer
        for cloud in customer.seeded.clouds:
            body = {"cloud_provider": "aws", "region": cloud.region, "iam_role_arn": cloud.role_arn}
            assert customer.post(f"/customers/{customer.id}/onboard", body) == {"status": "started"}
        return wait_until(
            customer.infrastructure,
            "the account to be listed",
            DISCOVERY_SECONDS,
            accept=lambda shown: shown.status not in (InventoryStatus.PENDING, InventoryStatus.DISCOVERING),
        )

    def assert_shown(self, **changes: Shown | None) -> Infrastructure:
        """After another listing exactly the expected instances are shown, with these changes (None: gone)."""
        for instance_id, shown in changes.items():
            if shown is None:
                del self.instances[instance_id]
            else:
                self.instances[instance_id] = shown
        estate = self.discover()
        assert estate.status == InventoryStatus.DISCOVERED, estate.error
        seen = {
            one.instance_id: (one.instance_type, one.lifecycle, one.state, one.monthly_cost) for one in estate.instances
        }
        assert seen == self.instances
        account_id = self.customer.seeded.clouds[0].account_id
        places = {(one.provider, one.region, one.account_id) for one in estate.instances}
        assert places == {("aws", REGION, account_id)}
        costs = [cost for *_, cost in self.instances.values()]
        assert estate.unpriced_instances == costs.count(None)
        self.assert_last_cost(None, sum(cost for cost in costs if cost is not None))
        return estate

    def assert_last_cost(self, deployment_id: str | None, cost: float) -> None:
        """The newest cost in the telemetry, of the estate or of a deployment; it is stored after the listing."""
        query = {"metric_type": "monthly_cost", "limit": 1} | ({"resource_id": deployment_id} if deployment_id else {})
        wait_until(
            lambda: [point["value"] for point in self.customer.get(f"/customers/{self.customer.id}/metrics", **query)],
            f"a cost of ${cost:,.2f} a month",
            DISCOVERY_SECONDS,
            accept=lambda values: values == [pytest.approx(cost, abs=0.01)],
        )

    def list_as(self, **states: str) -> None:
        """Have the cloud list instances in other states than they have."""
        for instance_id, state in states.items():
            self.customer.inject_fault({"kind": "listed_state", "instance_id": instance_id, "state": state})


def small_estate() -> Estate:
    """One deployment on three instances, and one idle instance."""
    estate = estates.load(ESTATES / "startup.yaml")
    return estate.model_copy(update={"deployments": estate.deployments[:1]})


def keyed(instance_id: str, shown: Shown | None) -> dict[str, Shown | None]:
    return {instance_id: shown}


def check_arrivals(account: Account, elsewhere: Customer) -> tuple[str, str]:
    """Instances of both lifecycles and without a known price come; those in other places are not the customer's."""
    spot, unpriced = account.launch("g6.12xlarge", "spot"), account.launch(UNPRICED)
    other_region = Accounts(account.customer.seeded.clouds[0].endpoint_url).ec2(
        "eu-west-1", account.customer.seeded.clouds[0].account_id
    )
    (abroad,) = aws.start_instances(other_region, "g5.xlarge", 1, "on-demand", TAGS)
    (theirs,) = aws.start_instances(cloud_state.ec2(elsewhere.seeded.clouds[0]), "g5.xlarge", 1, "on-demand", TAGS)
    try:
        account.assert_shown(
            **{spot: running("g6.12xlarge", "spot"), unpriced: (UNPRICED, "on-demand", "running", None)}
        )
        shown = {one.instance_id for one in elsewhere.infrastructure().instances}
        assert not shown & account.instances.keys(), "the other customer sees this one's instances"
        assert theirs not in account.instances
    finally:
        other_region.terminate_instances(InstanceIds=[abroad])
    return spot, unpriced


def check_states(account: Account, idle: str, spot: str, unpriced: str) -> None:
    """Only running instances cost money; what the cloud no longer lists is no longer shown."""
    account.ec2.stop_instances(InstanceIds=[idle, unpriced])
    account.assert_shown(**{idle: without_cost("g5.12xlarge", "stopped"), unpriced: without_cost(UNPRICED, "stopped")})
    account.ec2.start_instances(InstanceIds=[idle, unpriced])
    account.list_as(**{idle: "pending", unpriced: "pending", spot: "shutting-down"})
    account.assert_shown(
        **{
            idle: without_cost("g5.12xlarge", "pending"),
            unpriced: without_cost(UNPRICED, "pending"),
            spot: without_cost("g6.12xlarge", "terminated", "spot"),
        }
    )
    account.list_as(**{idle: "stopping", unpriced: "unlisted"})
    account.assert_shown(**{idle: without_cost("g5.12xlarge", "stopped"), unpriced: None})
    account.customer.clear_faults()
    account.ec2.terminate_instances(InstanceIds=[unpriced])
    account.assert_shown(
        **{
            idle: running("g5.12xlarge"),
            unpriced: without_cost(UNPRICED, "terminated"),
            spot: running("g6.12xlarge", "spot"),
        }
    )


def wait_for_replicas(customer: Customer, name: str, states: Mapping[str, str], with_traffic: int) -> str:
    """Wait until the platform shows replicas on these instances in these states, as the gateway does.

    Returns the id of the deployment.
    """

    def seen() -> tuple[list[tuple[str, Any]], int, str]:
        (found,) = (one for one in customer.infrastructure().vllm_deployments if one.name == name)
        engines = sorted((one.instance_id, one.state) for one in found.engines)
        return engines, found.replicas, found.deployment_id

    wanted = sorted(states.items())
    _, carrying, deployment_id = wait_until(
        seen, f"replicas of {name} {wanted}", RUNTIME_SECONDS, accept=lambda found: found[0] == wanted
    )
    assert carrying == with_traffic
    assert sorted((one["instance_id"], one["state"]) for one in customer.fleet(name)["replicas"]) == wanted
    return deployment_id


def check_replicas(account: Account, hosts: list[str], idle: str) -> None:
    """Replicas die with their instances, are added and removed; a deployment costs what its running instances cost."""
    customer, deployment = account.customer, f"{account.customer.seeded.fleet_url}/fleet/{account.customer.id}"
    each = running("g5.xlarge")[3] or 0.0
    deployment_id = wait_for_replicas(customer, "chat", dict.fromkeys(hosts, "ready"), 3)
    account.assert_last_cost(deployment_id, 3 * each)
    account.ec2.terminate_instances(InstanceIds=hosts[:1])
    wait_for_replicas(customer, "chat", {hosts[0]: "dead", hosts[1]: "ready", hosts[2]: "ready"}, 2)
    account.assert_shown(**keyed(hosts[0], without_cost("g5.xlarge", "terminated")))
    account.assert_last_cost(deployment_id, 2 * each)
    (dead,) = (one["replica_id"] for one in customer.fleet("chat")["replicas"] if one["instance_id"] == hosts[0])
    httpx.delete(f"{deployment}/deployments/chat/replicas/{dead}").raise_for_status()
    added = account.launch("g5.xlarge")
    answer = httpx.post(f"{deployment}/deployments/chat/replicas", json={"instance_id": added})
    answer.raise_for_status()
    wait_for_replicas(customer, "chat", {hosts[1]: "ready", hosts[2]: "ready", added: "ready"}, 2)
    shown = account.assert_shown(**keyed(added, running("g5.xlarge")))
    account.assert_last_cost(deployment_id, 3 * each)
    hosting = {hosts[1], hosts[2], added}
    alive = {instance_id for instance_id, (_, _, state, _) in account.instances.items() if state == "running"}
    assert idle in alive - hosting
    assert {one.instance_id for one in shown.instances if one.idle_since is not None} == alive - hosting


def check_deployments(account: Account) -> None:
    """A deployment that comes is shown; one that is gone is not shown, and what it ran on is idle."""
    customer = account.customer
    added = estates.load(ESTATES / "startup.yaml").deployments[1]
    customer.add_deployments([added])
    (second,) = (one for one in customer.infrastructure().vllm_deployments if one.name == added.name)
    hosts = [one.instance_id for one in second.engines]
    shown = account.assert_shown(**{host: running("g6.12xlarge") for host in hosts})
    assert [one.name for one in shown.vllm_deployments] == ["chat", "summaries"]
    account.assert_last_cost(second.deployment_id, 2 * (running("g6.12xlarge")[3] or 0.0))
    gateway = f"{customer.seeded.fleet_url}/fleet/{customer.id}/deployments"
    httpx.delete(f"{gateway}/{added.name}").raise_for_status()
    shown = wait_until(
        customer.infrastructure,
        f"{added.name} to be gone",
        RUNTIME_SECONDS,
        accept=lambda estate: [one.name for one in estate.vllm_deployments] == ["chat"],
    )
    idle = {one.instance_id for one in shown.instances if one.idle_since is not None}
    assert idle >= set(hosts), "instances of a deployment that is gone serve nothing"


@pytest.mark.slow
def test_discovery_follows_instances_and_deployments_with_their_cost(new_customer: NewCustomer) -> None:
    customer, elsewhere = new_customer(small_estate()), new_customer(small_estate())
    account = Account(customer)
    (cloud,) = customer.seeded.clouds
    hosts, (idle,) = sorted(cloud_state.running_in(cloud, "chat")), sorted(cloud_state.running_in(cloud, "idle"))
    account.assert_shown(**dict.fromkeys(hosts, running("g5.xlarge")), **keyed(idle, running("g5.12xlarge")))
    spot, unpriced = check_arrivals(account, elsewhere)
    check_states(account, idle, spot, unpriced)
    check_replicas(account, hosts, idle)
    check_deployments(account)
    before = {one.instance_id for one in elsewhere.infrastructure().instances}
    assert not before & account.instances.keys()
