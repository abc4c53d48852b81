"""What EC2 says of spot instances that it takes back."""

import asyncio

import pytest

from optiinfra.clouds.aws import AwsCloud
from tests.unit.clouds.ec2 import KEY, Ec2, ensure


def interrupted(cloud: AwsCloud) -> list[str]:
    return asyncio.run(cloud.interrupted(KEY))


def request_of(ec2: Ec2, instance_id: str) -> dict[str, object]:
    return next(request for request in ec2.requests.values() if request.get("InstanceId") == instance_id)


def test_what_runs_is_not_interrupted(cloud: AwsCloud, ec2: Ec2) -> None:
    assert interrupted(cloud) == []
    ensure(cloud, "spot")
    assert interrupted(cloud) == []


@pytest.mark.parametrize("code", ["marked-for-termination", "instance-terminated-no-capacity", "marked-for-stop"])
def test_an_instance_whose_request_is_marked_or_ended_is_named(cloud: AwsCloud, ec2: Ec2, code: str) -> None:
    _, second = ensure(cloud, "spot")
    request_of(ec2, second)["Status"] = {"Code": code}
    assert interrupted(cloud) == [second]


@pytest.mark.parametrize("state", ["shutting-down", "terminated", "stopped"])
def test_an_instance_that_ended_without_a_word_is_named(cloud: AwsCloud, ec2: Ec2, state: str) -> None:
    first, _ = ensure(cloud, "spot")
    ec2.machines[first]["State"] = {"Name": state}
    assert interrupted(cloud) == [first]


def test_an_instance_that_is_not_shown_yet_has_not_ended(cloud: AwsCloud, ec2: Ec2) -> None:
    first, _ = ensure(cloud, "spot")
    del ec2.machines[first]
    assert interrupted(cloud) == []


def test_other_steps_instances_are_not_ours_to_name(cloud: AwsCloud, ec2: Ec2) -> None:
    first, _ = ensure(cloud, "spot")
    request_of(ec2, first)["Status"] = {"Code": "marked-for-termination"}
    assert asyncio.run(cloud.interrupted("opt_2:targets")) == []
