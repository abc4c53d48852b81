"""Spot migrations of the sample estate while processes are killed or stores are unavailable, and their verification."""

from collections.abc import Callable
from typing import Literal, TypeVar

import httpx

from optiinfra.api.recommendations import Analysis, Optimization
from optiinfra.domain.optimization import FINAL
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.customer import Customer, Unavailable
from tests.helpers.migration_checks import FinishedMigration, ObservedEstate, Violations, find_violations

T = TypeVar("T")

MIGRATED = "vllm-prod-1"
SOURCE, TARGET = ("p4de.24xlarge", "on-demand"), ("p4de.24xlarge", "spot")
UNAVAILABLE = (httpx.TransportError, Unavailable)
"""Errors of a call while the platform or one of its stores is restarting."""


def retry(call: Callable[[], T]) -> T:
    """The result of a call, repeated while the platform is unavailable."""
    return wait_until(call, "an answer", 60, accept=lambda _: True, transient=UNAVAILABLE)


def observe(customer: Customer) -> ObservedEstate:
    """The customer's present state, read from the cloud and the gateway directly."""
    return ObservedEstate(cloud_state.running(customer.seeded), customer.fleet(MIGRATED))


def start_migration(customer: Customer) -> str:
    """Analyze and approve the migration, retrying while the platform is unavailable; returns the optimization's id."""
    analysis_id = retry(lambda: customer.start_analysis("cost"))
    analysis = wait_until(
        lambda: Analysis.model_validate(customer.get(f"/analyses/{analysis_id}")),
        f"analysis {analysis_id} to end",
        120,
        accept=lambda seen: seen.status != "started",
        transient=UNAVAILABLE,
    )
    assert analysis.status == "completed", f"analysis {analysis_id} failed: {analysis.error}"
    recommendation = retry(lambda: customer.recommendations_of(analysis))[MIGRATED]
    return str(retry(lambda: customer.post(f"/recommendations/{recommendation.id}/approve"))["optimization_id"])


def start_failing_migration(customer: Customer) -> str:
    """Start a migration that fails at its last stage and is rolled back from there; returns the optimization's id."""
    optimization_id = start_migration(customer)
    wait_for_step(customer, optimization_id, "full_migration")
    customer.inject_fault({"kind": "canary_latency", "factor": 6.0, "deployment": MIGRATED})
    return optimization_id


def wait_for_step(customer: Customer, optimization_id: str, name: str) -> None:
    """Wait until the step has started or the optimization has ended, retrying while the platform is unavailable."""

    def started() -> bool:
        optimization = customer.optimization(optimization_id)
        steps = {step.name for step in (*optimization.execution_steps, *optimization.rollback_steps)}
        return name in steps or optimization.status in FINAL

    wait_until(started, f"{name} to start", 90, transient=UNAVAILABLE, poll=0.01)


def wait_for_optimization(customer: Customer, optimization_id: str) -> Optimization:
    """The optimization after its end, retrying while the platform is unavailable."""
    return wait_until(
        lambda: customer.optimization(optimization_id),
        f"optimization {optimization_id} to end",
        180,
        accept=lambda optimization: optimization.status in FINAL,
        transient=UNAVAILABLE,
        poll=0.2,
    )


def check_migration(
    customer: Customer,
    optimization: Optimization,
    before: ObservedEstate,
    expected: Literal["completed", "rolled_back"],
) -> Violations:
    """Everything that is wrong with a finished migration."""
    path = f"/customers/{customer.id}"
    return find_violations(
        FinishedMigration(
            expected=expected,
            optimization=optimization,
            optimizations=[one["id"] for one in retry(lambda: customer.get(f"{path}/optimizations"))],
            events=retry(lambda: customer.get(f"{path}/events", limit=1000)),
            spot_requests=cloud_state.spot_requests(customer.seeded),
            instance_count=before.running.count(SOURCE),
            before=before,
            after=observe(customer),
            source=SOURCE,
            target=TARGET,
        )
    )


def assert_migrated_once(customer: Customer, optimization: Optimization, before: ObservedEstate) -> None:
    """The migration is completed, measured and stored: nothing is lost, duplicated or left over."""
    violations = check_migration(customer, optimization, before, "completed")
    assert violations == Violations(), str(violations)


def assert_rolled_back_once(customer: Customer, optimization: Optimization, before: ObservedEstate) -> None:
    """The migration is rolled back in reverse order: nothing is lost, duplicated or left over."""
    violations = check_migration(customer, optimization, before, "rolled_back")
    assert violations == Violations(), str(violations)
