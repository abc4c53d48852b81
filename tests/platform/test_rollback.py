"""A migration that goes wrong is undone: in reverse order, down to the last instance, and said so."""

from typing import Any

import pytest

from optiinfra.domain.optimization import STEPS
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer

MOVED = "vllm-prod-1"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "canary_latency", "factor": 6.0}, "the performance agent fails it"),
        ({"kind": "quality_drop", "score": 0.6}, "the application agent fails it"),
    ],
    ids=["slow canary", "worse answers"],
)
def test_a_canary_that_fails_is_taken_back(acme: Customer, fault: dict[str, Any], words: str) -> None:
    weights = acme.fleet(MOVED)["weights"]
    running = cloud_truth.running(acme.seeded)
    recommendation = acme.analyze("cost")[MOVED]
    acme.inject_fault({"deployment": MOVED, **fault})
    approval = acme.post(f"/recommendations/{recommendation.id}/approve")

    optimization = acme.wait_for_optimization(approval["optimization_id"])

    assert optimization.status == "rolled_back"
    done = [step.name for step in optimization.execution_steps]
    assert done == list(STEPS["spot_migration"][:3]), "nothing may follow the stage that failed"
    assert optimization.execution_steps[-1].status == "failed"
    assert [step.name for step in optimization.rollback_steps] == [f"undo_{step}" for step in reversed(done)]
    assert all(step.status == "completed" for step in optimization.rollback_steps)
    assert optimization.result is not None
    assert not optimization.result.success
    assert optimization.result.error is not None
    assert words in optimization.result.error
    assert optimization.result.original_state_restored
    assert acme.fleet(MOVED)["weights"] == weights
    assert acme.fleet(MOVED)["requests_dropped"] == 0
    assert cloud_truth.running(acme.seeded) == running


def test_a_completed_migration_can_be_taken_back(acme: Customer) -> None:
    running, before = cloud_truth.running(acme.seeded), acme.fleet(MOVED)
    approval = acme.post(f"/recommendations/{acme.analyze('cost')[MOVED].id}/approve")
    optimization = acme.wait_for_optimization(approval["optimization_id"])
    assert optimization.status == "completed", optimization.result

    acme.post(f"/optimizations/{optimization.id}/rollback")
    undone = acme.wait_for_rollback(optimization.id)

    assert undone.status == "rolled_back", undone.result
    assert [step.name for step in undone.rollback_steps] == [f"undo_{s}" for s in reversed(STEPS["spot_migration"])]
    assert undone.result is not None
    assert undone.result.original_state_restored
    assert cloud_truth.running(acme.seeded) == running
    shown = [instance for instance in acme.infrastructure().instances if instance.state == "running"]
    assert sorted((instance.instance_type, instance.lifecycle) for instance in shown) == running
    after = acme.fleet(MOVED)
    assert after["requests_dropped"] == 0
    assert after["engine_args"] == before["engine_args"]
    assert sorted(after["weights"].values()) == sorted(before["weights"].values())
    assert [replica["state"] for replica in after["replicas"]] == ["ready"] * len(before["replicas"])
