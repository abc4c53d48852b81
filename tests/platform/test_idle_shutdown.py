"""Idle shutdown: instances that serve nothing are stopped, watched and terminated, or brought back."""

from collections.abc import Iterator

import pytest

from fixtures import estates
from fixtures.aws import Accounts
from optiinfra.domain.optimization import rollback_step
from tests.helpers import cloud_state
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer, provisioned
from tests.helpers.idle_shutdown import (
    IDLE_TYPE,
    MONTHLY_COST,
    SHUTDOWN,
    assert_events_recorded_once,
    assert_rolled_back,
    idle_instances,
    recommend,
    start_shutdown,
    states,
    wait_for_state,
)
from tests.helpers.migration import wait_for_optimization, wait_for_step
from tests.helpers.private_platform import PrivatePlatform


@pytest.fixture
def birch(new_customer: NewCustomer) -> Customer:
    """A small estate with one idle instance."""
    return new_customer(estates.load(ESTATES / "startup.yaml"))


@pytest.fixture
def private_birch(private_platform: PrivatePlatform) -> Iterator[Customer]:
    """The same estate as a customer of the private platform."""
    with provisioned(private_platform.document, estates.load(ESTATES / "startup.yaml")) as customer:
        yield customer


def test_idle_shutdown_terminates_the_instance_and_saves_its_cost(birch: Customer) -> None:
    recommendation = recommend(birch)
    running = cloud_state.running(birch.seeded)
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
    assert cloud_state.running(birch.seeded) == running
    events = birch.get(f"/customers/{birch.id}/events", limit=1000)
    assert "outcome_stored" in {event["event_type"] for event in events}


def test_idle_shutdown_rolled_back_after_completion_launches_an_equal_instance(birch: Customer) -> None:
    running, (before,) = cloud_state.running(birch.seeded), idle_instances(birch)
    optimization_id = start_shutdown(birch)
    assert birch.wait_for_optimization(optimization_id).status == "completed"

    birch.post(f"/optimizations/{optimization_id}/rollback")

    assert_rolled_back(birch.wait_for_rollback(optimization_id), SHUTDOWN)
    assert cloud_state.running(birch.seeded) == running
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
    assert "was started again by its owner" in str(optimization.result.error)
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
def test_crash_at_a_step_of_an_idle_shutdown_loses_and_duplicates_nothing(
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
    assert_events_recorded_once(private_birch, optimization)


@pytest.mark.parametrize("step", SHUTDOWN)
def test_crash_at_a_rollback_step_of_an_idle_shutdown_restores_everything(
    private_platform: PrivatePlatform, private_birch: Customer, step: str
) -> None:
    running = cloud_state.running(private_birch.seeded)
    optimization_id = start_shutdown(private_birch)
    assert private_birch.wait_for_optimization(optimization_id).status == "completed"
    private_birch.post(f"/optimizations/{optimization_id}/rollback")
    wait_for_state(
        private_birch, optimization_id, lambda seen: rollback_step(step) in [one.name for one in seen.rollback_steps]
    )
    kill_orchestrator(private_platform)

    optimization = wait_for_state(private_birch, optimization_id, lambda seen: seen.status in ("rolled_back", "failed"))

    assert_rolled_back(optimization, SHUTDOWN)
    assert cloud_state.running(private_birch.seeded) == running
    assert_events_recorded_once(private_birch, optimization)
