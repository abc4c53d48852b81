"""A fake EC2 in memory that can fail before or after each operation."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.aws_clients import RoleClients
from optiinfra.clouds.protocol import STEP_TAG, Change

KEY = "opt_1:create_spot_instances"
ACCOUNT = "111122223333"


class Ec2:
    """The part of boto3's EC2 client that AwsCloud uses.

    An error in `fails` is raised once, before the named operation; one in `lost` once, after it was carried out. Of
    the spot requests of one launch the first `capacity` are fulfilled at once, and `fill` more at each listing.
    Instances belong to ACCOUNT, but those in `owners` to another account.
    """

    def __init__(self) -> None:
        self.machines: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.fails: dict[str, Exception] = {}
        self.lost: dict[str, Exception] = {}
        self.capacity, self.fill = 1000, 0
        self.owners: dict[str, str] = {}
        self.tokens: list[str] = []
        self.calls: list[str] = []
        self._numbers = itertools.count(1)
        self.add("on-demand", "p4de.24xlarge", [])

    @property
    def clients(self) -> RoleClients:
        return RoleClients(ACCOUNT, self, self, Credentials("key", "secret"))

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

    def _before(self, operation: str) -> None:
        self.calls.append(operation)
        if failure := self.fails.pop(operation, None):
            raise failure

    def _after(self, operation: str) -> None:
        if failure := self.lost.pop(operation, None):
            raise failure

    def fulfil(self, request: dict[str, Any], instance_type: str) -> None:
        request |= {"InstanceId": self.add("spot", instance_type, []), "Status": {"Code": "fulfilled"}}
        if request["State"] == "open":
            request["State"] = "active"

    def get_paginator(self, operation: str) -> "Paginator":
        return Paginator(self, operation)

    def page(self, operation: str, filters: dict[str, list[str]]) -> dict[str, Any]:
        self._before(operation)
        if operation == "describe_instances":
            found = self._instances_matching(filters)
            return {
                "Reservations": [
                    {"OwnerId": self.owners.get(one["InstanceId"], ACCOUNT), "Instances": [one]} for one in found
                ]
            }
        for request in [one for one in self.requests.values() if one["State"] == "open"][: self.fill]:
            self.fulfil(request, "p4de.24xlarge")
        return {"SpotInstanceRequests": self._requests_matching(filters)}

    def _instances_matching(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        def fits(machine: dict[str, Any]) -> bool:
            values = {
                "instance-id": [machine["InstanceId"]],
                "instance-state-name": [machine["State"]["Name"]],
                f"tag:{STEP_TAG}": [tag["Value"] for tag in machine["Tags"] if tag["Key"] == STEP_TAG],
            }
            return all(set(values[name]) & set(wanted) for name, wanted in filters.items())

        return [machine for machine in self.machines.values() if fits(machine)]

    def _requests_matching(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        def fits(request: dict[str, Any]) -> bool:
            values = {
                "spot-instance-request-id": [request["SpotInstanceRequestId"]],
                "state": [request["State"]],
                f"tag:{STEP_TAG}": [tag["Value"] for tag in request["Tags"] if tag["Key"] == STEP_TAG],
            }
            return all(set(values[name]) & set(wanted) for name, wanted in filters.items())

        return [request for request in self.requests.values() if fits(request)]

    def run_instances(self, **parameters: Any) -> dict[str, Any]:
        self._before("run_instances")
        self.tokens.append(parameters["ClientToken"])
        tags = parameters["TagSpecifications"][0]["Tags"]
        for _ in range(parameters["MinCount"]):
            self.add("on-demand", parameters["InstanceType"], list(tags))
        self._after("run_instances")
        return {}

    def request_spot_instances(self, **parameters: Any) -> dict[str, Any]:
        self._before("request_spot_instances")
        self.tokens.append(parameters["ClientToken"])
        requests: list[dict[str, Any]] = [
            {
                "SpotInstanceRequestId": f"sir-{next(self._numbers):04d}",
                "State": "open",
                "Status": {"Code": "capacity-not-available"},
                "Tags": list(parameters["TagSpecifications"][0]["Tags"]),
            }
            for _ in range(parameters["InstanceCount"])
        ]
        for request in requests[: self.capacity]:
            self.fulfil(request, parameters["LaunchSpecification"]["InstanceType"])
        self.requests |= {request["SpotInstanceRequestId"]: request for request in requests}
        self._after("request_spot_instances")
        return {"SpotInstanceRequests": requests}

    def create_tags(self, Resources: list[str], Tags: list[dict[str, str]]) -> None:  # noqa: N803
        self._before("create_tags")
        for resource in Resources:
            self.machines[resource]["Tags"].extend(Tags)

    def cancel_spot_instance_requests(self, SpotInstanceRequestIds: list[str]) -> None:  # noqa: N803
        self._before("cancel_spot_instance_requests")
        for request_id in SpotInstanceRequestIds:
            self.requests[request_id]["State"] = "cancelled"

    def stop_instances(self, InstanceIds: list[str]) -> None:  # noqa: N803
        self._before("stop_instances")
        for instance_id in InstanceIds:
            self.machines[instance_id]["State"] = {"Name": "stopped"}

    def start_instances(self, InstanceIds: list[str]) -> None:  # noqa: N803
        self._before("start_instances")
        for instance_id in InstanceIds:
            self.machines[instance_id]["State"] = {"Name": "running"}

    def terminate_instances(self, InstanceIds: list[str]) -> None:  # noqa: N803
        self._before("terminate_instances")
        for instance_id in InstanceIds:
            self.machines[instance_id]["State"] = {"Name": "shutting-down"}

    def describe_spot_price_history(self, **_query: Any) -> dict[str, Any]:
        self._before("describe_spot_price_history")
        return {"SpotPriceHistory": [{"SpotPrice": "15.2"}, {"SpotPrice": "14.9"}]}


class Paginator:
    """Returns all results in one page."""

    def __init__(self, ec2: Ec2, operation: str) -> None:
        self._ec2, self._operation = ec2, operation

    def paginate(self, Filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:  # noqa: N803
        yield self._ec2.page(self._operation, {one["Name"]: one["Values"] for one in Filters})


def ensure(cloud: AwsCloud, lifecycle: Any, count: int = 2) -> list[str]:
    return asyncio.run(cloud.ensure_instances(KEY, "p4de.24xlarge", count, lifecycle, {"Name": "vllm-prod-1"}))


def change(*source_ids: str) -> Change:
    """The change whose step KEY is, approved for these instances."""
    return Change("opt_1", frozenset(source_ids))


def running(ec2: Ec2) -> list[str]:
    """Ids of the running instances, without the one that exists from the start."""
    return [one for one, machine in ec2.machines.items() if machine["State"]["Name"] == "running"][1:]


def requests_in(ec2: Ec2, state: str) -> int:
    return [request["State"] for request in ec2.requests.values()].count(state)


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "RunInstances",
    )
