"""Launches that are fulfilled in part, late or without a response: none is doubled, and none is left behind."""

import asyncio
import threading
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.protocol import STEP_TAG, CloudUnavailable, InsufficientCapacity
from testbed.waiting import wait_until
from tests.unit.clouds.ec2 import KEY, Ec2, client_error, ensure, requests_in, running


def test_ensure_instances_fulfilled_in_part_keeps_instances_and_cancels_the_rest(
    hurried_cloud: AwsCloud, cloud: AwsCloud, ec2: Ec2
) -> None:
    ec2.capacity = 1
    with pytest.raises(InsufficientCapacity, match="2 of 3 wait: capacity-not-available"):
        ensure(hurried_cloud, "spot", 3)
    assert (requests_in(ec2, "active"), requests_in(ec2, "cancelled")) == (1, 2)
    assert asyncio.run(cloud.tagged_instances(KEY)) == running(ec2)
    assert len(running(ec2)) == 1


def test_tagged_finds_instance_of_cancelled_request(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.fails["create_tags"] = ConnectTimeoutError(endpoint_url="http://cloud")
    with pytest.raises(CloudUnavailable):
        ensure(cloud, "spot", 1)
    for request in ec2.requests.values():
        request["State"] = "cancelled"
    assert asyncio.run(cloud.tagged_instances(KEY)) == running(ec2) != []


def test_ensure_instances_waits_for_open_requests_and_tagged_does_not(
    hurried_cloud: AwsCloud, cloud: AwsCloud, ec2: Ec2
) -> None:
    with pytest.raises(InsufficientCapacity):
        leave_requests_open(hurried_cloud, ec2)
    assert asyncio.run(cloud.tagged_instances(KEY)) == []
    ec2.fill = 1
    assert len(ensure(cloud, "spot")) == 2
    assert len(ec2.requests) == 2, "the open requests of the first call are enough"


def leave_requests_open(hurried_cloud: AwsCloud, ec2: Ec2) -> None:
    """Request two instances without capacity, and let the cancellation of the requests fail."""
    ec2.capacity = 0
    ec2.fails["cancel_spot_instance_requests"] = ConnectTimeoutError(endpoint_url="http://cloud")
    try:
        ensure(hurried_cloud, "spot")
    finally:
        assert requests_in(ec2, "open") == 2


def test_cancel_and_terminate_ends_open_requests_and_instances(
    hurried_cloud: AwsCloud, cloud: AwsCloud, ec2: Ec2
) -> None:
    with pytest.raises(InsufficientCapacity) as error:
        leave_requests_open(hurried_cloud, ec2)
    assert "could not be cancelled" in error.value.__notes__[0]
    ec2.fill = 1  # one is fulfilled while the open ones are listed
    ended = asyncio.run(cloud.cancel_and_terminate(KEY))
    assert len(ended) == 1
    assert (running(ec2), requests_in(ec2, "open")) == ([], 0)
    assert asyncio.run(cloud.cancel_and_terminate(KEY)) == []


def test_cancel_and_terminate_ends_instance_fulfilled_during_cancellation(
    hurried_cloud: AwsCloud, cloud: AwsCloud, ec2: Ec2
) -> None:
    with pytest.raises(InsufficientCapacity):
        leave_requests_open(hurried_cloud, ec2)
    cancel = ec2.cancel_spot_instance_requests

    def fulfil_and_cancel(SpotInstanceRequestIds: list[str]) -> None:  # noqa: N803
        ec2.fulfil(ec2.requests[SpotInstanceRequestIds[0]], "p4de.24xlarge")
        cancel(SpotInstanceRequestIds)

    ec2.cancel_spot_instance_requests = fulfil_and_cancel  # type: ignore[method-assign]
    assert len(asyncio.run(cloud.cancel_and_terminate(KEY))) == 1
    assert running(ec2) == []


def test_cancel_and_terminate_of_request_that_stays_open_raises(hurried_cloud: AwsCloud, ec2: Ec2) -> None:
    with pytest.raises(InsufficientCapacity):
        leave_requests_open(hurried_cloud, ec2)
    ec2.cancel_spot_instance_requests = lambda SpotInstanceRequestIds: None  # type: ignore[method-assign]  # noqa: N803
    with pytest.raises(CloudUnavailable, match="still open"):
        asyncio.run(hurried_cloud.cancel_and_terminate(KEY))


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_cancel_and_terminate_ends_all_instances_of_the_step(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    made = ensure(cloud, lifecycle)
    assert asyncio.run(cloud.cancel_and_terminate(KEY)) == made
    assert running(ec2) == []


def test_ensure_instances_cancelled_while_waiting_cancels_open_requests(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.capacity = 1

    def is_waiting() -> bool:
        calls = iter(ec2.calls)
        return "request_spot_instances" in calls and "describe_spot_instance_requests" in calls  # in this order

    async def stop() -> None:
        task = asyncio.create_task(cloud.ensure_instances(KEY, "p4de.24xlarge", 2, "spot", {}))
        await asyncio.to_thread(wait_until, is_waiting, "the requests to be waited for", 30, poll=0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stop())
    assert (requests_in(ec2, "active"), requests_in(ec2, "cancelled")) == (1, 1)


def test_ensure_instances_cancelled_during_launch_waits_for_it(cloud: AwsCloud, ec2: Ec2) -> None:
    launching, proceed, run = threading.Event(), threading.Event(), ec2.run_instances

    def slowly(**parameters: Any) -> dict[str, Any]:
        launching.set()
        assert proceed.wait(10)
        return run(**parameters)

    ec2.run_instances = slowly  # type: ignore[method-assign]

    async def stop() -> None:
        task = asyncio.create_task(cloud.ensure_instances(KEY, "p4de.24xlarge", 2, "on-demand", {}))
        assert await asyncio.to_thread(launching.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_later(0.02, proceed.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(running(ec2)) == 2, "a launch ended after the cancellation"

    asyncio.run(stop())


@pytest.mark.parametrize(
    ("lifecycle", "operation"), [("spot", "request_spot_instances"), ("on-demand", "run_instances")]
)
def test_ensure_instances_with_lost_response_finds_instances(
    cloud: AwsCloud, ec2: Ec2, lifecycle: str, operation: str
) -> None:
    ec2.lost[operation] = client_error("Unavailable", 503)
    assert ensure(cloud, lifecycle) == running(ec2)
    assert len(running(ec2)) == 2
    assert ec2.calls.count(operation) == 1


@pytest.mark.parametrize(
    ("lifecycle", "operation"), [("spot", "request_spot_instances"), ("on-demand", "run_instances")]
)
def test_ensure_instances_unanswered_retries_with_same_client_token(
    cloud: AwsCloud, ec2: Ec2, lifecycle: str, operation: str
) -> None:
    again = getattr(ec2, operation)

    def unanswered(**parameters: Any) -> None:
        ec2.tokens.append(parameters["ClientToken"])
        setattr(ec2, operation, again)
        raise ConnectTimeoutError(endpoint_url="http://cloud")

    setattr(ec2, operation, unanswered)
    made = ensure(cloud, lifecycle)
    assert made == running(ec2)
    assert len(made) == 2
    assert len(ec2.tokens) == 2
    assert len(set(ec2.tokens)) == 1, "EC2 would launch twice"


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_ensure_instances_for_replacement_uses_new_client_token(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    for instance_id in ensure(cloud, lifecycle):
        ec2.machines[instance_id]["State"] = {"Name": "terminated"}
    assert len(ensure(cloud, lifecycle)) == 2
    assert len(set(ec2.tokens)) == 2
    assert all(len(token) <= 64 for token in ec2.tokens)


def test_ensure_instances_unanswered_repeatedly_raises_after_three_launches(cloud: AwsCloud, ec2: Ec2) -> None:
    def unanswered(**_parameters: Any) -> None:
        ec2.calls.append("run_instances")
        raise ConnectTimeoutError(endpoint_url="http://cloud")

    ec2.run_instances = unanswered  # type: ignore[assignment,method-assign]
    with pytest.raises(CloudUnavailable):
        ensure(cloud, "on-demand")
    assert ec2.calls.count("run_instances") == 3


def test_open_requests_are_open_and_tagged_for_a_step(cloud: AwsCloud, ec2: Ec2) -> None:
    step = [{"Key": STEP_TAG, "Value": "opt_1:targets"}]
    for name, state, tags in (("sir-1", "open", step), ("sir-2", "active", step), ("sir-3", "open", [])):
        ec2.requests[name] = {"SpotInstanceRequestId": name, "State": state, "Tags": tags}
    assert asyncio.run(cloud.open_requests()) == {"sir-1": {STEP_TAG: "opt_1:targets"}}
