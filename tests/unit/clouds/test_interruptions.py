"""Detection of spot interruptions."""

import asyncio

import pytest

from optiinfra.clouds.aws import AwsCloud
from tests.unit.clouds.ec2 import KEY, Ec2, ensure


def interrupted(cloud: AwsCloud) -> list[str]:
    return asyncio.run(cloud.interrupted_instances(KEY))


def request_of(ec2: Ec2, instance_id: str) -> dict[str, object]:
    return next(request for request in ec2.requests.values() if request.get("InstanceId") == instance_id)


def test_interrupted_of_running_instances_is_empty(cloud: AwsCloud, ec2: Ec2) -> None:
    assert interrupted(cloud) == []
    ensure(cloud, "spot")
    assert interrupted(cloud) == []


@pytest.mark.parametrize("code", ["marked-for-termination", "instance-terminated-no-capacity", "marked-for-stop"])
def test_interrupted_includes_instance_of_marked_or_ended_request(cloud: AwsCloud, ec2: Ec2, code: str) -> None:
    _, second = ensure(cloud, "spot")
    request_of(ec2, second)["Status"] = {"Code": code}
    assert interrupted(cloud) == [second]


@pytest.mark.parametrize("state", ["shutting-down", "terminated", "stopped"])
def test_interrupted_includes_ended_instance_without_notice(cloud: AwsCloud, ec2: Ec2, state: str) -> None:
    first, _ = ensure(cloud, "spot")
    ec2.machines[first]["State"] = {"Name": state}
    assert interrupted(cloud) == [first]


def test_interrupted_ignores_instance_that_is_not_listed_yet(cloud: AwsCloud, ec2: Ec2) -> None:
    first, _ = ensure(cloud, "spot")
    del ec2.machines[first]
    assert interrupted(cloud) == []


def test_interrupted_ignores_instances_of_other_steps(cloud: AwsCloud, ec2: Ec2) -> None:
    first, _ = ensure(cloud, "spot")
    request_of(ec2, first)["Status"] = {"Code": "marked-for-termination"}
    assert asyncio.run(cloud.interrupted_instances("opt_2:targets")) == []
