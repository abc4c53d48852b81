"""What must be true of an optimization whoever was killed, or away, while it was carried out."""

from collections import Counter
from typing import Any

from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import STEPS, undo_name
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer


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
