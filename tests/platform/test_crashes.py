"""`kill -9` of the orchestrator at each step, of others where they work: all is done once, nothing is left over."""

import os
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from fixtures import estates
from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import FINAL, STEPS, undo_name
from testbed.waiting import wait_until
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.own_environment import OwnEnvironment, own_environment

MOVED = "vllm-prod-1"
ORCHESTRATOR = "optiinfra.orchestrator"
STEPS_OF_IT = STEPS["spot_migration"]
UNDONE = STEPS_OF_IT[:6]


@pytest.fixture(scope="module")
def own() -> Iterator[OwnEnvironment]:
    """Killing its orchestrator disturbs nobody else."""
    with own_environment(f"crashes-{os.getpid()}") as environment:
        yield environment


@pytest.fixture
def acme(own: OwnEnvironment) -> Iterator[Customer]:
    with provisioned(own.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer


def seen(customer: Customer, optimization_id: str, name: str) -> Optimization | None:
    """The optimization once the step has begun, or is over altogether."""
    optimization = customer.optimization(optimization_id)
    begun = {step.name for step in (*optimization.execution_steps, *optimization.rollback_steps)}
    return optimization if name in begun or optimization.status in FINAL else None


def crash_at(
    own: OwnEnvironment, customer: Customer, optimization_id: str, step: str, module: str = ORCHESTRATOR
) -> Optimization:
    """Kill a process as soon as the step is seen; the optimization once it is over."""
    wait_until(lambda: seen(customer, optimization_id, step), f"{step} to begin", 60, poll=0.01)
    own.process(module).kill()
    return wait_until(
        lambda: customer.optimization(optimization_id),
        f"optimization {optimization_id} to end after the crash",
        120,
        accept=lambda optimization: optimization.status in FINAL,
        transient=(httpx.TransportError,),
        poll=0.2,
    )


def assert_events_without_gap_or_repetition(customer: Customer, optimization_id: str) -> None:
    events = customer.get(f"/customers/{customer.id}/events", limit=1000)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    told = Counter(
        (event["event_type"], event["step"]) for event in events if event["optimization_id"] == optimization_id
    )
    assert [what for what, times in told.items() if times > 1] == []


def assert_migrated_once(customer: Customer, optimization: Optimization) -> None:
    assert optimization.status == "completed", optimization.result
    assert tuple(each.name for each in optimization.execution_steps) == STEPS_OF_IT
    assert {each.status for each in optimization.execution_steps} == {"completed"}
    assert cloud_truth.running(customer.seeded, MOVED) == [("p4de.24xlarge", "spot")] * 2
    fleet = customer.fleet(MOVED)
    assert fleet["requests_dropped"] == 0
    assert [replica["state"] for replica in fleet["replicas"]] == ["ready"] * 2
    assert_events_without_gap_or_repetition(customer, optimization.id)


@pytest.mark.parametrize("step", STEPS_OF_IT)
def test_a_crash_at_any_step_loses_and_doubles_nothing(own: OwnEnvironment, acme: Customer, step: str) -> None:
    approval = acme.post(f"/recommendations/{acme.analyzed('cost')[MOVED].id}/approve")

    optimization = crash_at(own, acme, approval["optimization_id"], step)

    assert_migrated_once(acme, optimization)


@pytest.mark.parametrize(
    ("module", "step"),
    [
        ("optiinfra.runtime", "deploy_canary"),
        ("optiinfra.runtime", "validate_canary"),
        ("optiinfra.runtime", "terminate_ondemand"),
        ("optiinfra.agents.perf_agent", "validate_canary"),
        ("optiinfra.agents.app_agent", "validate_50_percent"),
    ],
)
def test_a_crash_of_who_works_for_it_loses_and_doubles_nothing(
    own: OwnEnvironment, acme: Customer, module: str, step: str
) -> None:
    approval = acme.post(f"/recommendations/{acme.analyzed('cost')[MOVED].id}/approve")

    optimization = crash_at(own, acme, approval["optimization_id"], step, module)

    assert_migrated_once(acme, optimization)


@pytest.mark.parametrize("step", UNDONE)
def test_a_crash_while_undoing_restores_everything(own: OwnEnvironment, acme: Customer, step: str) -> None:
    before, running = acme.fleet(MOVED), cloud_truth.running(acme.seeded)
    recommendation = acme.analyzed("cost")[MOVED]
    approval = acme.post(f"/recommendations/{recommendation.id}/approve")
    wait_until(lambda: seen(acme, approval["optimization_id"], "full_migration"), "the last stage", 60, poll=0.01)
    acme.break_fleet({"kind": "canary_latency", "factor": 6.0, "deployment": MOVED})

    optimization = crash_at(own, acme, approval["optimization_id"], undo_name(step))

    assert optimization.status == "rolled_back", optimization.result
    assert [each.name for each in optimization.rollback_steps] == [undo_name(each) for each in reversed(UNDONE)]
    assert optimization.result is not None
    assert optimization.result.original_state_restored
    assert cloud_truth.running(acme.seeded) == running
    fleet = acme.fleet(MOVED)
    assert fleet["requests_dropped"] == 0
    assert fleet["weights"] == before["weights"]
    assert_events_without_gap_or_repetition(acme, optimization.id)
