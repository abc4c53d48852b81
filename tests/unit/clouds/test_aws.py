"""AwsCloud against an EC2 that holds what it is told and can be stopped between two calls."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.protocol import (
    STEP_TAG,
    CloudError,
    CloudUnavailable,
    InsufficientCapacity,
    RoleDenied,
)

KEY = "opt_1:create_spot_instances"


class Ec2:
    """The part of EC2 that AwsCloud uses. `fails` raises once, before the named operation does anything."""

    def __init__(self) -> None:
        self.machines: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.fails: dict[str, Exception] = {}
        self.calls: list[str] = []
        self._numbers = count(1)
        self.add("on-demand", "p4de.24xlarge", [])

    def add(self, lifecycle: str, instance_type: str, tags: list[dict[str, str]]) -> str:
        instance_id = f"i-{next(self._numbers):04d}"
        self.machines[instance_id] = {
            "InstanceId": instance_id,
            "InstanceType": instance_type,
            "ImageId": "ami-1",
            "LaunchTime": len(self.machines),
            "State": {"Name": "running"},
            "Tags": tags,
            **({"InstanceLifecycle": "spot"} if lifecycle == "spot" else {}),
        }
        return instance_id

    def _enter(self, operation: str) -> None:
        self.calls.append(operation)
        if failure := self.fails.pop(operation, None):
            raise failure

    def get_paginator(self, operation: str) -> "Paginator":
        return Paginator(self, operation)

    def page(self, operation: str, filters: dict[str, list[str]]) -> dict[str, Any]:
        self._enter(operation)
        if operation == "describe_instances":
            return {"Reservations": [{"Instances": self._matching(filters)}]}
        return {"SpotInstanceRequests": self._asked(filters)}

    def _matching(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        def fits(machine: dict[str, Any]) -> bool:
            values = {
                "instance-id": [machine["InstanceId"]],
                "instance-state-name": [machine["State"]["Name"]],
                f"tag:{STEP_TAG}": [tag["Value"] for tag in machine["Tags"] if tag["Key"] == STEP_TAG],
            }
            return all(set(values[name]) & set(wanted) for name, wanted in filters.items())

        return [machine for machine in self.machines.values() if fits(machine)]

    def _asked(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        def fits(request: dict[str, Any]) -> bool:
            values = {
                "spot-instance-request-id": [request["SpotInstanceRequestId"]],
                "instance-id": [request["InstanceId"]],
                "state": [request["State"]],
                f"tag:{STEP_TAG}": [tag["Value"] for tag in request["Tags"] if tag["Key"] == STEP_TAG],
            }
            return all(set(values[name]) & set(wanted) for name, wanted in filters.items())

        return [request for request in self.requests.values() if fits(request)]

    def run_instances(self, **order: Any) -> dict[str, Any]:
        self._enter("run_instances")
        tags = order["TagSpecifications"][0]["Tags"]
        for _ in range(order["MinCount"]):
            self.add("on-demand", order["InstanceType"], list(tags))
        return {}

    def request_spot_instances(self, **order: Any) -> dict[str, Any]:
        self._enter("request_spot_instances")
        made = []
        for _ in range(order["InstanceCount"]):
            request: dict[str, Any] = {
                "SpotInstanceRequestId": f"sir-{next(self._numbers):04d}",
                "InstanceId": self.add("spot", order["LaunchSpecification"]["InstanceType"], []),
                "State": "active",
                "Status": {"Code": "fulfilled"},
                "Tags": list(order["TagSpecifications"][0]["Tags"]),
            }
            self.requests[request["SpotInstanceRequestId"]] = request
            made.append(request)
        return {"SpotInstanceRequests": made}

    def create_tags(self, Resources: list[str], Tags: list[dict[str, str]]) -> None:  # noqa: N803
        self._enter("create_tags")
        for resource in Resources:
            self.machines[resource]["Tags"].extend(Tags)

    def cancel_spot_instance_requests(self, SpotInstanceRequestIds: list[str]) -> None:  # noqa: N803
        self._enter("cancel_spot_instance_requests")
        for request_id in SpotInstanceRequestIds:
            self.requests[request_id]["State"] = "cancelled"

    def terminate_instances(self, InstanceIds: list[str]) -> None:  # noqa: N803
        self._enter("terminate_instances")
        for instance_id in InstanceIds:
            self.machines[instance_id]["State"] = {"Name": "shutting-down"}

    def describe_spot_price_history(self, **_query: Any) -> dict[str, Any]:
        self._enter("describe_spot_price_history")
        return {"SpotPriceHistory": [{"SpotPrice": "15.2"}, {"SpotPrice": "14.9"}]}


class Paginator:
    """One page of everything."""

    def __init__(self, ec2: Ec2, operation: str) -> None:
        self._ec2, self._operation = ec2, operation

    def paginate(self, Filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:  # noqa: N803
        yield self._ec2.page(self._operation, {one["Name"]: one["Values"] for one in Filters})


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


@pytest.fixture
def cloud(ec2: Ec2) -> AwsCloud:
    return AwsCloud(ec2, "111122223333", "us-east-1")


def ensure(cloud: AwsCloud, lifecycle: Any, wanted: int = 2) -> list[str]:
    return asyncio.run(cloud.ensure_instances(KEY, "p4de.24xlarge", wanted, lifecycle, {"Name": "vllm-prod-1"}))


def refused(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "RunInstances",
    )


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_ensuring_twice_makes_them_once(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    first = ensure(cloud, lifecycle)
    assert len(first) == 2
    assert ensure(cloud, lifecycle) == first
    assert len(ec2.machines) == 3
    for instance_id in first:
        tags = {tag["Key"]: tag["Value"] for tag in ec2.machines[instance_id]["Tags"]}
        assert tags == {"Name": "vllm-prod-1", STEP_TAG: KEY}


def test_dying_between_the_spot_request_and_the_tags_makes_no_third_instance(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.fails["create_tags"] = ConnectTimeoutError(endpoint_url="http://cloud")
    with pytest.raises(CloudUnavailable):
        ensure(cloud, "spot")
    assert len(ensure(cloud, "spot")) == 2
    assert len(ec2.machines) == 3


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_only_what_is_missing_is_made(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    first = ensure(cloud, lifecycle)
    ec2.machines[first[0]]["State"] = {"Name": "terminated"}
    second = ensure(cloud, lifecycle)
    assert len(set(second) - set(first)) == 1
    assert first[1] in second


def test_terminating_cancels_the_requests_and_may_be_repeated(cloud: AwsCloud, ec2: Ec2) -> None:
    made = ensure(cloud, "spot")
    asyncio.run(cloud.terminate([*made, "i-long-gone"]))
    asyncio.run(cloud.terminate(made))
    assert {request["State"] for request in ec2.requests.values()} == {"cancelled"}
    assert asyncio.run(cloud.tagged(KEY)) == []
    assert ec2.calls.count("terminate_instances") == 1
    assert ec2.calls.count("cancel_spot_instance_requests") == 1


def test_instances_carry_lifecycle_and_our_states(cloud: AwsCloud, ec2: Ec2) -> None:
    made = ensure(cloud, "spot", 1)
    ec2.machines["i-0001"]["State"] = {"Name": "stopping"}
    shown = {instance.instance_id: instance for instance in asyncio.run(cloud.instances())}
    assert (shown["i-0001"].lifecycle, shown["i-0001"].state) == ("on-demand", "stopped")
    assert (shown[made[0]].lifecycle, shown[made[0]].state) == ("spot", "running")
    assert (shown[made[0]].provider, shown[made[0]].region) == ("aws", "us-east-1")


def test_the_quote_is_the_cheapest_zones(cloud: AwsCloud) -> None:
    assert asyncio.run(cloud.spot_quote("p4de.24xlarge")) == 14.9


def test_without_a_machine_image_to_copy_the_error_says_so(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.machines.clear()
    with pytest.raises(CloudError, match="machine image"):
        ensure(cloud, "spot")


@pytest.mark.parametrize(
    ("failure", "meaning"),
    [
        (refused("AccessDenied"), RoleDenied),
        (refused("UnauthorizedOperation"), RoleDenied),
        (refused("InsufficientInstanceCapacity", 500), InsufficientCapacity),
        (refused("RequestLimitExceeded", 503), CloudUnavailable),
        (refused("SomethingElse", 500), CloudUnavailable),
        (refused("InvalidParameterValue"), CloudError),
        (ConnectTimeoutError(endpoint_url="http://cloud"), CloudUnavailable),
    ],
)
def test_errors_say_what_they_mean(
    cloud: AwsCloud, ec2: Ec2, failure: Exception, meaning: Callable[..., CloudError]
) -> None:
    ec2.fails["run_instances"] = failure
    with pytest.raises(CloudError) as error:
        ensure(cloud, "on-demand")
    assert type(error.value) is meaning
