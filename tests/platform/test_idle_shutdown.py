"""Idle shutdown: instances that serve nothing are stopped, watched and terminated, or brought back."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fixtures import estates
from fixtures.aws import Accounts
from optiinfra.api.recommendations import Optimization, Recommendation
from optiinfra.domain.optimization import STEPS, rollback_step
from testbed.waiting import wait_until
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer, provisioned
from tests.helpers.migration import UNAVAILABLE, retry, wait_for_optimization, wait_for_step
from tests.helpers.private_platform import PrivatePlatform

SHUTDOWN = STEPS["idle_shutdown"]
IDLE_TYPE = "g5.12xlarge"
MONTHLY_COST = cloud_truth.HOURLY[IDLE_TYPE, "on-demand"] * cloud_truth.HOURS_PER_MONTH


@pytest.fixture
def birch(new_customer: NewCustomer) -> Customer:
    """A small estate with one idle instance."""
    return new_customer(estates.load(ESTATES / "startup.yaml"))


@pytest.fixture
def private_birch(private_platform: PrivatePlatform) -> Iterator[Customer]:
    """The same estate as a customer of the private platform."""
    with provisioned(private_platform.document, estates.load(ESTATES / "startup.yaml")) as customer:
        yield customer


def recommend(customer: Customer) -> Recommendation:
    """The recommendation to shut down, once the instance has been idle for the grace period."""
    recommended = wait_until(
        lambda: customer.analyze("cost"),
        "an idle shutdown to be recommended",
        60,
        accept=lambda found: "idle_shutdown" in found,
    )
    return recommended["idle_shutdown"]


def start_shutdown(customer: Customer) -> str:
    """Recommend and approve a shutdown; the optimization's id."""
    approval = customer.post(f"/recommendations/{recommend(customer).id}/approve")
    return str(approval["optimization_id"])


def idle_instances(customer: Customer) -> list[Any]:
    """Every instance of the idle type that the cloud itself still describes."""
    (cloud,) = customer.seeded.clouds
    ec2 = Accounts(cloud.endpoint_url).ec2(cloud.region, cloud.account_id)
    pages = ec2.get_paginator("describe_instances").paginate(Filters=[{"Name": "instance-type", "Values": [IDLE_TYPE]}])
    return [one for page in pages for reservation in page["Reservations"] for one in reservation["Instances"]]


def states(customer: Customer) -> list[str]:
    return sorted(one["State"]["Name"] for one in idle_instances(customer))


def assert_rolled_back(optimization: Optimization, executed: tuple[str, ...]) -> None:
    """Every step that began is rolled back, last one first, and the original state is restored."""
    assert optimization.status == "rolled_back", optimization.result
    assert tuple(step.name for step in optimization.execution_steps) == executed
    undone = [step.name for step in optimization.rollback_steps]
    assert undone == [rollback_step(step) for step in reversed(executed)]
    assert {step.status for step in optimization.rollback_steps} == {"completed"}
    assert optimization.result is not None
    assert optimization.result.original_state_restored


def test_idle_shutdown_terminates_the_instance_and_saves_its_cost(birch: Customer) -> None:
    recommendation = recommend(birch)
    running = cloud_truth.running(birch.seeded)
    assert recommendation.estimated_savings == pytest.approx(MONTHLY_COST, abs=0.01)
    assert {validation.agent_type for validation in recommendation.validations} == {"performance", "application"}
    approval = birch.post(f"/recommendations/{recommendation.id}/approve")

    optimization = birch.wait_for_optimization(approval["optimization_id"])

    assert optimization.status == "completed", optimization.result
    assert tuple(step.name for step in optimization.execution_steps) == SHUTDOWN
    assert optimization.result is not None
    assert optimization.result.success
    assert optimization.result.actual_savings == pytest.approx(MONTHLY_COST, abs=0.01)
    assert optimization.result.cost_after == 0.0
    assert optimization.result.requests_dropped == 0
    assert states(birch) == ["terminated"]
    running.remove((IDLE_TYPE, "on-demand"))
    assert cloud_truth.running(birch.seeded) == running
    events = birch.get(f"/customers/{birch.id}/events", limit=1000)
    assert "outcome_stored" in {event["event_type"] for event in events}


def test_idle_shutdown_rolled_back_after_completion_launches_an_equal_instance(birch: Customer) -> None:
    running, (before,) = cloud_truth.running(birch.seeded), idle_instances(birch)
    optimization_id = start_shutdown(birch)
    assert birch.wait_for_optimization(optimization_id).status == "completed"

    birch.post(f"/optimizations/{optimization_id}/rollback")

    assert_rolled_back(birch.wait_for_rollback(optimization_id), SHUTDOWN)
    assert cloud_truth.running(birch.seeded) == running
    (after,) = [one for one in idle_instances(birch) if one["State"]["Name"] == "running"]
    for name in ("ImageId", "InstanceType", "SubnetId", "SecurityGroups", "Placement"):
        assert after[name] == before[name], name
    tags = {tag["Key"]: tag["Value"] for tag in after["Tags"]}
    assert {tag["Key"]: tag["Value"] for tag in before.get("Tags", [])}.items() <= tags.items()


def test_idle_shutdown_of_an_instance_that_its_owner_starts_again_is_rolled_back(birch: Customer) -> None:
    optimization_id = start_shutdown(birch)
    wait_for_step(birch, optimization_id, "verify_unaffected")
    (cloud,) = birch.seeded.clouds
    ec2 = Accounts(cloud.endpoint_url).ec2(cloud.region, cloud.account_id)
    ec2.start_instances(InstanceIds=[one["InstanceId"] for one in idle_instances(birch)])

    optimization = birch.wait_for_optimization(optimization_id)

    assert_rolled_back(optimization, SHUTDOWN[:3])
    assert optimization.result is not None
    assert "was started again by somebody who needs it" in str(optimization.result.error)
    assert states(birch) == ["running"]


def test_idle_shutdown_while_a_deployment_drops_requests_is_rolled_back(birch: Customer) -> None:
    optimization_id = start_shutdown(birch)
    wait_for_step(birch, optimization_id, "verify_unaffected")
    birch.inject_fault({"kind": "gateway_drop", "rate": 0.5, "deployment": "chat"})

    optimization = birch.wait_for_optimization(optimization_id)

    assert_rolled_back(optimization, SHUTDOWN[:3])
    assert optimization.result is not None
    assert "chat dropped" in str(optimization.result.error)
    assert states(birch) == ["running"]


def kill_orchestrator(platform: PrivatePlatform) -> None:
    platform.kill("optiinfra.orchestrator")


@pytest.mark.parametrize("step", SHUTDOWN)
def test_crash_at_a_step_of_an_idle_shutdown_loses_and_doubles_nothing(
    private_platform: PrivatePlatform, private_birch: Customer, step: str
) -> None:
    optimization_id = start_shutdown(private_birch)
    wait_for_step(private_birch, optimization_id, step)
    kill_orchestrator(private_platform)

    optimization = wait_for_optimization(private_birch, optimization_id)

    assert optimization.status == "completed", optimization.result
    assert tuple(one.name for one in optimization.execution_steps) == SHUTDOWN
    assert optimization.result is not None
    assert optimization.result.actual_savings == pytest.approx(MONTHLY_COST, abs=0.01)
    assert states(private_birch) == ["terminated"]
    assert_told_once(private_birch, optimization)


@pytest.mark.parametrize("step", SHUTDOWN)
def test_crash_at_a_rollback_step_of_an_idle_shutdown_restores_everything(
    private_platform: PrivatePlatform, private_birch: Customer, step: str
) -> None:
    running = cloud_truth.running(private_birch.seeded)
    optimization_id = start_shutdown(private_birch)
    assert private_birch.wait_for_optimization(optimization_id).status == "completed"
    private_birch.post(f"/optimizations/{optimization_id}/rollback")
    wait_for_rollback_state(
        private_birch, optimization_id, lambda seen: rollback_step(step) in [one.name for one in seen.rollback_steps]
    )
    kill_orchestrator(private_platform)

    optimization = wait_for_rollback_state(
        private_birch, optimization_id, lambda seen: seen.status in ("rolled_back", "failed")
    )

    assert_rolled_back(optimization, SHUTDOWN)
    assert cloud_truth.running(private_birch.seeded) == running
    assert_told_once(private_birch, optimization)


def wait_for_rollback_state(
    customer: Customer, optimization_id: str, accept: Callable[[Optimization], bool]
) -> Optimization:
    """The optimization in an accepted state, retrying while the platform is unavailable."""
    return wait_until(
        lambda: customer.optimization(optimization_id),
        f"the rollback of {optimization_id}",
        120,
        accept=accept,
        transient=UNAVAILABLE,
        poll=0.01,
    )


def assert_told_once(customer: Customer, optimization: Optimization) -> None:
    """Events have numbers without a gap, and each step began and ended once."""
    events = retry(lambda: customer.get(f"/customers/{customer.id}/events", limit=1000))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    told = [
        (event["event_type"], event["step"])
        for event in events
        if event["optimization_id"] == optimization.id and event["step"] is not None
    ]
    assert len(told) == len(set(told)), told
    steps = [*optimization.execution_steps, *optimization.rollback_steps]
    assert sorted(step for kind, step in told if kind == "step_started") == sorted(step.name for step in steps)
