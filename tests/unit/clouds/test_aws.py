"""AwsCloud against an EC2 in memory."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.loaders import JSONFileLoader
from botocore.parsers import ResponseParserError

from optiinfra.clouds import aws, aws_clients
from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.protocol import STEP_TAG, CloudError, CloudUnavailable, InsufficientCapacity, RoleDenied
from tests.unit.clouds.ec2 import KEY, Ec2, ensure, refused


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


def test_a_cloud_that_is_away_for_a_moment_is_waited_for(
    cloud: AwsCloud, ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "_AWAY_SECONDS", 5.0)
    ec2.fails["describe_instances"] = ConnectTimeoutError(endpoint_url="http://cloud")

    async def look() -> object:
        (seen,) = await asyncio.gather(cloud.instances(), return_exceptions=True)
        return seen

    assert isinstance(asyncio.run(look()), list), "given up at once"
    assert ec2.calls.count("describe_instances") == 2


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
        (ResponseParserError("<html>"), CloudUnavailable),
    ],
)
def test_errors_say_what_they_mean(
    cloud: AwsCloud, ec2: Ec2, failure: Exception, meaning: Callable[..., CloudError]
) -> None:
    ec2.fails["describe_instances"] = failure
    with pytest.raises(CloudError) as error:
        asyncio.run(cloud.instances())
    assert type(error.value) is meaning


def test_a_services_description_is_read_once_for_all_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    aws_clients._descriptions.cache_clear()
    read: list[str] = []
    load = JSONFileLoader.load_file

    def noted(self: JSONFileLoader, path: str) -> Any:
        read.append(path)
        return load(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", noted)
    for _ in range(2):
        session = aws_clients._session()
        session.set_credentials("test", "test")
        aws_clients._client(session, "sts", "http://cloud", "us-east-1", aws_clients._PATIENT)
    assert len([path for path in read if path.endswith("service-2")]) == 1
