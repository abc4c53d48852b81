"""A migration of the sample estate while others are killed or away, and what must be true of it afterwards."""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from optiinfra.api.recommendations import Analysis, Optimization
from optiinfra.domain.optimization import FINAL, STEPS, undo_name
from testbed.waiting import wait_until
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer

T = TypeVar("T")

MOVED = "vllm-prod-1"
AWAY = (httpx.TransportError, AssertionError)
"""What a call meets while the platform is being brought back."""


def persistently(call: Callable[[], T]) -> T:
    """What a call comes to, whoever is away meanwhile."""
    return wait_until(call, "an answer", 60, accept=lambda _: True, transient=AWAY)


def migrate(customer: Customer) -> str:
    """Have the migration approved, whoever is away meanwhile; the optimization's id."""
    analysis_id = persistently(lambda: customer.start_analysis("cost"))
    analysis = wait_until(
        lambda: persistently(lambda: customer.get(f"/analyses/{analysis_id}")),
        f"analysis {analysis_id} to end",
        120,
        accept=lambda seen: seen["status"] != "started",
    )
    assert analysis["status"] == "completed", f"analysis {analysis_id} failed: {analysis['error']}"
    recommendation = persistently(lambda: customer.recommendations_of(Analysis.model_validate(analysis)))[MOVED]
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


def assert_events_without_gap_or_repetition(customer: Customer, optimization_id: str) -> None:
    """Numbered from 1 on, and each thing that happened to the optimization told once."""
    events = customer.get(f"/customers/{customer.id}/events", limit=1000)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    told = Counter(
        (event["event_type"], event["step"]) for event in events if event["optimization_id"] == optimization_id
    )
    assert [what for what, times in told.items() if times > 1] == []


def assert_migrated_once(customer: Customer, optimization: Optimization, moved: str) -> None:
    """Every step done once; as many spot instances as were wanted, none besides, and no request lost."""
    assert optimization.status == "completed", optimization.result
    assert tuple(each.name for each in optimization.execution_steps) == STEPS["spot_migration"]
    assert {each.status for each in optimization.execution_steps} == {"completed"}
    assert cloud_truth.running(customer.seeded, moved) == [("p4de.24xlarge", "spot")] * 2
    assert cloud_truth.spot_requests(customer.seeded) == ["active"] * 2, "as many as were needed, ordered once"
    fleet = customer.fleet(moved)
    assert fleet["requests_dropped"] == 0
    assert [replica["state"] for replica in fleet["replicas"]] == ["ready"] * 2
    assert_events_without_gap_or_repetition(customer, optimization.id)


def assert_undone_once(
    customer: Customer,
    optimization: Optimization,
    moved: str,
    before: dict[str, Any],
    running: list[tuple[str, str]],
) -> None:
    """Everything that was begun is undone, last first, once; fleet and cloud are as they were before."""
    assert optimization.status == "rolled_back", optimization.result
    done = [each.name for each in optimization.execution_steps]
    assert [each.name for each in optimization.rollback_steps] == [undo_name(each) for each in reversed(done)]
    assert optimization.result is not None
    assert optimization.result.original_state_restored
    assert cloud_truth.running(customer.seeded) == running
    assert [state for state in cloud_truth.spot_requests(customer.seeded) if state in ("open", "active")] == []
    fleet = customer.fleet(moved)
    assert fleet["requests_dropped"] == 0
    assert fleet["weights"] == before["weights"]
    assert_events_without_gap_or_repetition(customer, optimization.id)
