"""Orders that come in part, late, or without an answer: nothing is made twice, and nothing is left behind."""

import asyncio
import threading
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from optiinfra.clouds import aws
from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.protocol import STEP_TAG, CloudUnavailable, InsufficientCapacity
from testbed.waiting import wait_until
from tests.unit.clouds.ec2 import KEY, Ec2, ensure, living, refused, requests_in


def test_a_partly_fulfilled_order_keeps_what_came_and_cancels_the_rest(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.capacity = 1
    with pytest.raises(InsufficientCapacity, match="2 of 3 wait: capacity-not-available"):
        ensure(cloud, "spot", 3)
    assert (requests_in(ec2, "active"), requests_in(ec2, "cancelled")) == (1, 2)
    assert asyncio.run(cloud.tagged(KEY)) == living(ec2)
    assert len(living(ec2)) == 1


def test_an_instance_is_found_after_its_request_was_cancelled(cloud: AwsCloud, ec2: Ec2) -> None:
    ec2.fails["create_tags"] = ConnectTimeoutError(endpoint_url="http://cloud")
    with pytest.raises(CloudUnavailable):
        ensure(cloud, "spot", 1)
    for request in ec2.requests.values():
        request["State"] = "cancelled"
    assert asyncio.run(cloud.tagged(KEY)) == living(ec2) != []


def test_looking_does_not_wait_for_open_requests_but_ensuring_does(cloud: AwsCloud, ec2: Ec2) -> None:
    with pytest.raises(InsufficientCapacity):
        interrupted(cloud, ec2)
    assert asyncio.run(cloud.tagged(KEY)) == []
    ec2.fill = 1
    assert len(ensure(cloud, "spot")) == 2
    assert len(ec2.requests) == 2, "those that an earlier try left open are enough"


def interrupted(cloud: AwsCloud, ec2: Ec2) -> None:
    """Order two instances that do not come, and have the cancellation of the requests refused."""
    ec2.capacity = 0
    ec2.fails["cancel_spot_instance_requests"] = ConnectTimeoutError(endpoint_url="http://cloud")
    try:
        ensure(cloud, "spot")
    finally:
        assert requests_in(ec2, "open") == 2


def test_discarding_cancels_what_is_open_and_terminates_what_came(cloud: AwsCloud, ec2: Ec2) -> None:
    with pytest.raises(InsufficientCapacity) as error:
        interrupted(cloud, ec2)
    assert "could not be cancelled" in error.value.__notes__[0]
    ec2.fill = 1  # one comes at the very moment when the open ones are looked for
    ended = asyncio.run(cloud.cancel_and_terminate(KEY))
    assert len(ended) == 1
    assert (living(ec2), requests_in(ec2, "open")) == ([], 0)
    assert asyncio.run(cloud.cancel_and_terminate(KEY)) == []


def test_discarding_ends_what_was_fulfilled_while_it_was_cancelled(cloud: AwsCloud, ec2: Ec2) -> None:
    with pytest.raises(InsufficientCapacity):
        interrupted(cloud, ec2)
    cancel = ec2.cancel_spot_instance_requests

    def too_late(SpotInstanceRequestIds: list[str]) -> None:  # noqa: N803
        ec2._fulfil(ec2.requests[SpotInstanceRequestIds[0]], "p4de.24xlarge")
        cancel(SpotInstanceRequestIds)

    ec2.cancel_spot_instance_requests = too_late  # type: ignore[method-assign]
    assert len(asyncio.run(cloud.cancel_and_terminate(KEY))) == 1
    assert living(ec2) == []


def test_discarding_does_not_believe_a_cancellation_before_it_shows(
    cloud: AwsCloud, ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "_TERMINATION_DEADLINE", 0.02)
    with pytest.raises(InsufficientCapacity):
        interrupted(cloud, ec2)
    ec2.cancel_spot_instance_requests = lambda SpotInstanceRequestIds: None  # type: ignore[method-assign]  # noqa: N803
    with pytest.raises(CloudUnavailable, match="still open"):
        asyncio.run(cloud.cancel_and_terminate(KEY))


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_discarding_ends_all_instances_of_the_step(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    made = ensure(cloud, lifecycle)
    assert asyncio.run(cloud.cancel_and_terminate(KEY)) == made
    assert living(ec2) == []


def test_being_stopped_while_waiting_cancels_what_has_not_come(
    cloud: AwsCloud, ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    monkeypatch.setattr(aws, "_FULFILMENT_DEADLINE", 60.0)
    asyncio.run(stop())
    assert (requests_in(ec2, "active"), requests_in(ec2, "cancelled")) == (1, 1)


def test_being_stopped_while_ordering_waits_for_the_order(cloud: AwsCloud, ec2: Ec2) -> None:
    ordering, order, run = threading.Event(), threading.Event(), ec2.run_instances

    def slowly(**asked: Any) -> dict[str, Any]:
        ordering.set()
        assert order.wait(10)
        return run(**asked)

    ec2.run_instances = slowly  # type: ignore[method-assign]

    async def stop() -> None:
        task = asyncio.create_task(cloud.ensure_instances(KEY, "p4de.24xlarge", 2, "on-demand", {}))
        assert await asyncio.to_thread(ordering.wait, 10)
        task.cancel()
        asyncio.get_running_loop().call_later(0.02, order.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(living(ec2)) == 2, "nothing comes after the end"

    asyncio.run(stop())


@pytest.mark.parametrize(
    ("lifecycle", "operation"), [("spot", "request_spot_instances"), ("on-demand", "run_instances")]
)
def test_an_order_whose_answer_was_lost_is_found(cloud: AwsCloud, ec2: Ec2, lifecycle: str, operation: str) -> None:
    ec2.lost[operation] = refused("Unavailable", 503)
    assert ensure(cloud, lifecycle) == living(ec2)
    assert len(living(ec2)) == 2
    assert ec2.calls.count(operation) == 1


@pytest.mark.parametrize(
    ("lifecycle", "operation"), [("spot", "request_spot_instances"), ("on-demand", "run_instances")]
)
def test_an_order_that_failed_on_the_way_is_sent_again_as_the_same(
    cloud: AwsCloud, ec2: Ec2, lifecycle: str, operation: str
) -> None:
    again = getattr(ec2, operation)

    def unheard(**order: Any) -> None:
        ec2.tokens.append(order["ClientToken"])
        setattr(ec2, operation, again)
        raise ConnectTimeoutError(endpoint_url="http://cloud")

    setattr(ec2, operation, unheard)
    made = ensure(cloud, lifecycle)
    assert made == living(ec2)
    assert len(made) == 2
    assert len(ec2.tokens) == 2
    assert len(set(ec2.tokens)) == 1, "EC2 may know it already, and answers it then with what it made"


@pytest.mark.parametrize("lifecycle", ["spot", "on-demand"])
def test_what_replaces_the_ended_is_a_new_order(cloud: AwsCloud, ec2: Ec2, lifecycle: str) -> None:
    for instance_id in ensure(cloud, lifecycle):
        ec2.machines[instance_id]["State"] = {"Name": "terminated"}
    assert len(ensure(cloud, lifecycle)) == 2
    assert len(set(ec2.tokens)) == 2
    assert all(len(token) <= 64 for token in ec2.tokens)


def test_orders_that_keep_failing_end(cloud: AwsCloud, ec2: Ec2) -> None:
    def away(**_order: Any) -> None:
        ec2.calls.append("run_instances")
        raise ConnectTimeoutError(endpoint_url="http://cloud")

    ec2.run_instances = away  # type: ignore[assignment,method-assign]
    with pytest.raises(CloudUnavailable):
        ensure(cloud, "on-demand")
    assert ec2.calls.count("run_instances") == 3


def test_open_orders_are_those_of_any_step_that_wait(cloud: AwsCloud, ec2: Ec2) -> None:
    step = [{"Key": STEP_TAG, "Value": "opt_1:targets"}]
    for name, state, tags in (("sir-1", "open", step), ("sir-2", "active", step), ("sir-3", "open", [])):
        ec2.requests[name] = {"SpotInstanceRequestId": name, "State": state, "Tags": tags}
    assert asyncio.run(cloud.open_requests()) == {"sir-1": {STEP_TAG: "opt_1:targets"}}
