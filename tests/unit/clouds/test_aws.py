"""AwsCloud on a fake EC2 in memory."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.loaders import JSONFileLoader
from botocore.parsers import ResponseParserError

from optiinfra.clouds import aws_clients
from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.protocol import (
    STEP_TAG,
    Change,
    CloudError,
    CloudUnavailable,
    InsufficientCapacity,
    NotCovered,
    RoleDenied,
)
from tests.unit.clouds.ec2 import ACCOUNT, KEY, Ec2, change, client_error, ensure


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_ensure_instances_repeated_launches_once(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    first = ensure(cloud, lifecycle)
    assert len(first) == 2
    assert ensure(cloud, lifecycle) == first
    assert len(ec2.machines) == 3
    for instance_id in first:
        tags = {tag["Key"]: tag["Value"] for tag in ec2.machines[instance_id]["Tags"]}
        assert tags == {"Name": "vllm-prod-1", STEP_TAG: KEY}


def test_ensure_instances_after_crash_before_tagging_launches_no_more(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.fails["create_tags"] = ConnectTimeoutError(endpoint_url="http://cloud")
    with pytest.raises(CloudUnavailable):
        ensure(cloud, "spot")
    assert len(ensure(cloud, "spot")) == 2
    assert len(ec2.machines) == 3


def test_call_during_short_outage_is_retried(patient_cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.fails["describe_instances"] = ConnectTimeoutError(endpoint_url="http://cloud")

    async def list_instances() -> object:
        (result,) = await asyncio.gather(patient_cloud.instances(), return_exceptions=True)
        return result

    assert isinstance(asyncio.run(list_instances()), list), "no retry"
    assert ec2.calls.count("describe_instances") == 2


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_ensure_instances_launches_only_missing_ones(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    first = ensure(cloud, lifecycle)
    ec2.machines[first[0]]["State"] = {"Name": "terminated"}
    second = ensure(cloud, lifecycle)
    assert len(set(second) - set(first)) == 1
    assert first[1] in second


def test_terminate_cancels_requests_and_is_idempotent(cloud: AwsCloud, ec2: Ec2) -> None:
    made = ensure(cloud, "spot")
    asyncio.run(cloud.terminate(change(), [*made, "i-long-gone"]))
    asyncio.run(cloud.terminate(change(), made))
    assert {request["State"] for request in ec2.requests.values()} == {"cancelled"}
    assert asyncio.run(cloud.tagged_instances(KEY)) == []
    assert ec2.calls.count("terminate_instances") == 1
    assert ec2.calls.count("cancel_spot_instance_requests") == 1


ACTIONS: dict[str, Callable[[AwsCloud, Change, list[str]], Any]] = {
    "terminate": AwsCloud.terminate,
    "stop": AwsCloud.stop,
    "start": AwsCloud.start,
}


@pytest.mark.parametrize("action", ACTIONS)
def test_change_affects_its_sources_and_what_its_own_steps_created(cloud: AwsCloud, ec2: Ec2, action: str) -> None:
    (made,) = ensure(cloud, "on-demand", 1)
    before = ec2.calls.count(f"{action}_instances")
    if action == "start":
        for instance_id in ("i-0001", made):
            ec2.machines[instance_id]["State"] = {"Name": "stopped"}
    asyncio.run(ACTIONS[action](cloud, change("i-0001"), ["i-0001", made]))
    assert ec2.calls.count(f"{action}_instances") == before + 1
    states = {ec2.machines[instance_id]["State"]["Name"] for instance_id in ("i-0001", made)}
    assert states == {{"terminate": "shutting-down", "stop": "stopped", "start": "running"}[action]}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("tag", [None, "opt_10:create_spot_instances", "opt_2:targets", "opt_1"])
def test_change_affects_no_other_instance(cloud: AwsCloud, ec2: Ec2, action: str, tag: str | None) -> None:
    other = ec2.add("on-demand", "g5.xlarge", [{"Key": STEP_TAG, "Value": tag}] if tag else [])
    state = {"Name": "stopped" if action == "start" else "running"}
    ec2.machines["i-0001"]["State"] = ec2.machines[other]["State"] = state
    with pytest.raises(NotCovered, match=f"{other} is not part of opt_1"):
        asyncio.run(ACTIONS[action](cloud, change("i-0001"), ["i-0001", other]))
    assert not {"terminate_instances", "stop_instances", "start_instances"} & set(ec2.calls)


@pytest.mark.parametrize("action", ACTIONS)
def test_change_affects_no_instance_of_another_account(cloud: AwsCloud, ec2: Ec2, action: str) -> None:
    ec2.owners["i-0001"] = "999999999999"
    ec2.machines["i-0001"]["State"] = {"Name": "stopped" if action == "start" else "running"}
    with pytest.raises(NotCovered, match=f"i-0001 belongs to another account than {ACCOUNT}"):
        asyncio.run(ACTIONS[action](cloud, change("i-0001"), ["i-0001"]))
    assert not {"terminate_instances", "stop_instances", "start_instances"} & set(ec2.calls)


def test_instances_have_lifecycle_state_and_region(cloud: AwsCloud, ec2: Ec2) -> None:
    made = ensure(cloud, "spot", 1)
    ec2.machines["i-0001"]["State"] = {"Name": "stopping"}
    shown = {instance.instance_id: instance for instance in asyncio.run(cloud.instances())}
    assert (shown["i-0001"].lifecycle, shown["i-0001"].state) == ("on-demand", "stopped")
    assert (shown[made[0]].lifecycle, shown[made[0]].state) == ("spot", "running")
    assert (shown[made[0]].provider, shown[made[0]].region) == ("aws", "us-east-1")


def test_spot_quote_is_that_of_the_cheapest_zone(cloud: AwsCloud) -> None:
    assert asyncio.run(cloud.spot_quote("p4de.24xlarge")) == 14.9


def test_ensure_instances_without_running_instance_names_machine_image(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.machines.clear()
    with pytest.raises(CloudError, match="machine image"):
        ensure(cloud, "spot")


@pytest.mark.parametrize(
    ("failure", "error_type"),
    [
        (client_error("AccessDenied"), RoleDenied),
        (client_error("UnauthorizedOperation"), RoleDenied),
        (client_error("InsufficientInstanceCapacity", 500), InsufficientCapacity),
        (client_error("RequestLimitExceeded", 503), CloudUnavailable),
        (client_error("SomethingElse", 500), CloudUnavailable),
        (client_error("InvalidParameterValue"), CloudError),
        (ConnectTimeoutError(endpoint_url="http://cloud"), CloudUnavailable),
        (ResponseParserError("<html>"), CloudUnavailable),
    ],
)
def test_client_error_is_translated(
    cloud: AwsCloud, ec2: Ec2, failure: Exception, error_type: Callable[..., CloudError]
) -> None:
    ec2.fails["describe_instances"] = failure
    with pytest.raises(CloudError) as error:
        asyncio.run(cloud.instances())
    assert type(error.value) is error_type


def test_service_description_is_loaded_once_for_all_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    aws_clients.data_loader.cache_clear()
    loaded: list[str] = []
    load = JSONFileLoader.load_file

    def load_and_record(self: JSONFileLoader, path: str) -> Any:
        loaded.append(path)
        return load(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", load_and_record)
    for _ in range(2):
        session = aws_clients.new_session()
        session.set_credentials("test", "test")
        aws_clients.new_client(session, "sts", "http://cloud", "us-east-1", aws_clients.RETRYING)
    assert len([path for path in loaded if path.endswith("service-2")]) == 1
