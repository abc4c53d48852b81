"""A customer with two accounts in one region: changes are made in the account that holds the instances."""

import pytest

from fixtures import estates
from optiinfra.domain.optimization import STEPS
from tests.helpers import cloud_state
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer
from tests.helpers.idle_shutdown import IDLE_TYPE, start_shutdown

SECOND_ACCOUNT_DEPLOYMENT = "summaries"
ON_DEMAND, SPOT = ("g6.12xlarge", "on-demand"), ("g6.12xlarge", "spot")
IDLE = (IDLE_TYPE, "on-demand")


@pytest.fixture
def elm(new_customer: NewCustomer) -> Customer:
    """One deployment in each account; the idle instance is in the account that was onboarded second."""
    return new_customer(estates.load(ESTATES / "two-accounts.yaml"))


def approve(customer: Customer, deployment: str) -> str:
    """Have the deployment's recommendation approved; returns the optimization's id."""
    recommendation = customer.analyze("cost")[deployment]
    assert recommendation.type == "spot_migration"
    return str(customer.post(f"/recommendations/{recommendation.id}/approve")["optimization_id"])


def test_migration_in_the_second_account_launches_and_terminates_there(elm: Customer) -> None:
    first, second = elm.seeded.clouds
    untouched = cloud_state.running_in(first)
    sources = cloud_state.running_in(second, SECOND_ACCOUNT_DEPLOYMENT)
    assert sorted(sources.values()) == [ON_DEMAND] * 2
    cost_before = cloud_state.monthly_cost(elm.seeded)

    optimization = elm.wait_for_optimization(approve(elm, SECOND_ACCOUNT_DEPLOYMENT))

    assert optimization.status == "completed", optimization.result
    assert cloud_state.running_in(first) == untouched
    assert cloud_state.spot_requests_in(first) == []
    now_running = cloud_state.running_in(second)
    assert sorted(now_running.values()) == sorted([SPOT, SPOT, IDLE])
    assert not sources.keys() & now_running.keys()
    assert optimization.result is not None
    assert optimization.result.success
    saved = cost_before - cloud_state.monthly_cost(elm.seeded)
    assert saved > 0
    assert optimization.result.actual_savings == pytest.approx(saved, abs=0.05)
    shown = {one.instance_id: one.account_id for one in elm.infrastructure().instances if one.state == "running"}
    assert shown == dict.fromkeys(untouched, first.account_id) | dict.fromkeys(now_running, second.account_id)


def test_rollback_of_a_migration_in_the_second_account_restores_it_there(elm: Customer) -> None:
    first, second = elm.seeded.clouds
    untouched, before = cloud_state.running_in(first), cloud_state.running_in(second)
    optimization_id = approve(elm, SECOND_ACCOUNT_DEPLOYMENT)
    assert elm.wait_for_optimization(optimization_id).status == "completed"

    elm.post(f"/optimizations/{optimization_id}/rollback")
    optimization = elm.wait_for_rollback(optimization_id)

    assert optimization.status == "rolled_back", optimization.result
    assert cloud_state.running_in(first) == untouched
    assert sorted(cloud_state.running_in(second).values()) == sorted(before.values())
    assert optimization.result is not None
    assert optimization.result.original_state_restored


def test_idle_shutdown_in_the_second_account_terminates_there(elm: Customer) -> None:
    first, second = elm.seeded.clouds
    untouched, before = cloud_state.running_in(first), cloud_state.running_in(second)
    idle = {instance_id for instance_id, kind in before.items() if kind == IDLE}

    optimization = elm.wait_for_optimization(start_shutdown(elm))

    assert optimization.status == "completed", optimization.result
    assert tuple(step.name for step in optimization.execution_steps) == STEPS["idle_shutdown"]
    assert cloud_state.running_in(first) == untouched
    assert cloud_state.running_in(second).keys() == before.keys() - idle
