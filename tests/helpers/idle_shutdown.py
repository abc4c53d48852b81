"""Idle shutdowns of a small estate with one idle instance, and their verification."""

from collections.abc import Callable
from typing import Any

from fixtures.aws import Accounts
from optiinfra.api.recommendations import Optimization, Recommendation
from optiinfra.domain.optimization import STEPS, rollback_step
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.customer import Customer
from tests.helpers.migration import UNAVAILABLE, retry

SHUTDOWN = STEPS["idle_shutdown"]
IDLE_TYPE = "g5.12xlarge"
MONTHLY_COST = cloud_state.HOURLY[IDLE_TYPE, "on-demand"] * cloud_state.HOURS_PER_MONTH


def recommend(customer: Customer) -> Recommendation:
    """The shutdown recommendation, after the instance has been idle for the grace period."""
    recommended = wait_until(
        lambda: customer.analyze("cost"),
        "an idle shutdown to be recommended",
        60,
        accept=lambda found: "idle_shutdown" in found,
    )
    return recommended["idle_shutdown"]


def start_shutdown(customer: Customer) -> str:
    """Analyze and approve a shutdown; returns the optimization's id."""
    approval = customer.post(f"/recommendations/{recommend(customer).id}/approve")
    return str(approval["optimization_id"])


def idle_instances(customer: Customer) -> list[Any]:
    """All instances of the idle type that the customer's clouds still list, terminated ones included."""
    found = []
    for cloud in customer.seeded.clouds:
        ec2 = Accounts(cloud.endpoint_url).ec2(cloud.region, cloud.account_id)
        filters = [{"Name": "instance-type", "Values": [IDLE_TYPE]}]
        for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):  # type: ignore[arg-type]
            found += [one for reservation in page["Reservations"] for one in reservation["Instances"]]
    return found


def states(customer: Customer) -> list[str]:
    """The states of the idle instances, sorted."""
    return sorted(one["State"]["Name"] for one in idle_instances(customer))


def assert_rolled_back(optimization: Optimization, executed: tuple[str, ...]) -> None:
    """Exactly these steps were executed and rolled back in reverse order, and the original state is restored."""
    assert optimization.status == "rolled_back", optimization.result
    assert tuple(step.name for step in optimization.execution_steps) == executed
    rolled_back = [step.name for step in optimization.rollback_steps]
    assert rolled_back == [rollback_step(step) for step in reversed(executed)]
    assert {step.status for step in optimization.rollback_steps} == {"completed"}
    assert optimization.result is not None
    assert optimization.result.original_state_restored


def assert_events_recorded_once(customer: Customer, optimization: Optimization) -> None:
    """Event numbers have no gap, and each step has each of its events once."""
    events = retry(lambda: customer.get(f"/customers/{customer.id}/events", limit=1000))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    recorded = [
        (event["event_type"], event["step"])
        for event in events
        if event["optimization_id"] == optimization.id and event["step"] is not None
    ]
    assert len(recorded) == len(set(recorded)), recorded
    steps = [*optimization.execution_steps, *optimization.rollback_steps]
    assert sorted(step for kind, step in recorded if kind == "step_started") == sorted(step.name for step in steps)


def wait_for_state(customer: Customer, optimization_id: str, accept: Callable[[Optimization], bool]) -> Optimization:
    """The optimization in an accepted state, retrying while the platform is unavailable."""
    return wait_until(
        lambda: customer.optimization(optimization_id),
        f"the expected state of {optimization_id}",
        120,
        accept=accept,
        transient=UNAVAILABLE,
        poll=0.01,
    )
