"""A migration of the sample estate while others are killed or away, and what must be true of it afterwards."""

from collections.abc import Callable
from typing import Literal, TypeVar

import httpx

from optiinfra.api.recommendations import Analysis, Optimization
from optiinfra.domain.optimization import FINAL
from testbed.waiting import wait_until
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer, Unavailable
from tests.helpers.migration_faults import Ended, Estate, Faults, faults_of

T = TypeVar("T")

MOVED = "vllm-prod-1"
OLD, NEW = ("p4de.24xlarge", "on-demand"), ("p4de.24xlarge", "spot")
AWAY = (httpx.TransportError, Unavailable)
"""What a call meets while the platform, or a store of its, is being brought back."""


def persistently(call: Callable[[], T]) -> T:
    """What a call comes to, whoever is away meanwhile."""
    return wait_until(call, "an answer", 60, accept=lambda _: True, transient=AWAY)


def estate_of(customer: Customer) -> Estate:
    """What the customer has now, past the platform."""
    return Estate(cloud_truth.running(customer.seeded), customer.fleet(MOVED))


def migrate(customer: Customer) -> str:
    """Have the migration approved, whoever is away meanwhile; the optimization's id."""
    analysis_id = persistently(lambda: customer.start_analysis("cost"))
    analysis = wait_until(
        lambda: Analysis.model_validate(customer.get(f"/analyses/{analysis_id}")),
        f"analysis {analysis_id} to end",
        120,
        accept=lambda seen: seen.status != "started",
        transient=AWAY,
    )
    assert analysis.status == "completed", f"analysis {analysis_id} failed: {analysis.error}"
    recommendation = persistently(lambda: customer.recommendations_of(analysis))[MOVED]
    return str(persistently(lambda: customer.post(f"/recommendations/{recommendation.id}/approve"))["optimization_id"])


def spoiled(customer: Customer) -> str:
    """A migration that fails at its last stage, and so undoes all that was done; the optimization's id."""
    optimization_id = migrate(customer)
    begun(customer, optimization_id, "full_migration")
    customer.break_fleet({"kind": "canary_latency", "factor": 6.0, "deployment": MOVED})
    return optimization_id


def begun(customer: Customer, optimization_id: str, name: str) -> None:
    """Wait until the step has begun, or all is over, whoever is away meanwhile."""

    def seen() -> bool:
        optimization = customer.optimization(optimization_id)
        steps = {step.name for step in (*optimization.execution_steps, *optimization.rollback_steps)}
        return name in steps or optimization.status in FINAL

    wait_until(seen, f"{name} to begin", 90, transient=AWAY, poll=0.01)


def finished(customer: Customer, optimization_id: str) -> Optimization:
    """The optimization once it is over, whoever is away meanwhile."""
    return wait_until(
        lambda: customer.optimization(optimization_id),
        f"optimization {optimization_id} to end",
        180,
        accept=lambda optimization: optimization.status in FINAL,
        transient=AWAY,
        poll=0.2,
    )


def faults_in(
    customer: Customer, optimization: Optimization, before: Estate, wanted: Literal["completed", "rolled_back"]
) -> Faults:
    """What is wrong with a migration that is over."""
    path = f"/customers/{customer.id}"
    return faults_of(
        Ended(
            wanted=wanted,
            optimization=optimization,
            optimizations=[one["id"] for one in persistently(lambda: customer.get(f"{path}/optimizations"))],
            events=persistently(lambda: customer.get(f"{path}/events", limit=1000)),
            spot_requests=cloud_truth.spot_requests(customer.seeded),
            orders=before.running.count(OLD),
            before=before,
            after=estate_of(customer),
            moved=OLD,
            to=NEW,
        )
    )


def assert_migrated_once(customer: Customer, optimization: Optimization, before: Estate) -> None:
    """Carried out, measured and remembered: nothing lost, nothing done twice, nothing left over."""
    assert faults_in(customer, optimization, before, "completed") == Faults()


def assert_undone_once(customer: Customer, optimization: Optimization, before: Estate) -> None:
    """Undone, last step first: nothing lost, nothing done twice, nothing left over."""
    assert faults_in(customer, optimization, before, "rolled_back") == Faults()
