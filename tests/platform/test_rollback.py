"""A failed or revoked migration is rolled back in reverse order, completely, and its result says so."""

from typing import Any

import pytest

from optiinfra.domain.optimization import STEPS
from tests.helpers import cloud_state
from tests.helpers.customer import Customer

MIGRATED = "vllm-prod-1"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "canary_latency", "factor": 6.0}, "the performance agent rejected the stage"),
        ({"kind": "quality_drop", "score": 0.6}, "the application agent rejected the stage"),
    ],
    ids=["slow canary", "worse answers"],
)
def test_migration_with_a_failing_canary_is_rolled_back(acme: Customer, fault: dict[str, Any], error: str) -> None:
    weights = acme.fleet(MIGRATED)["weights"]
    running = cloud_state.running(acme.seeded)
    recommendation = acme.analyze("cost")[MIGRATED]
    acme.inject_fault({"deployment": MIGRATED, **fault})
    approval = acme.post(f"/recommendations/{recommendation.id}/approve")

    optimization = acme.wait_for_optimization(approval["optimization_id"])

    assert optimization.status == "rolled_back"
    executed = [step.name for step in optimization.execution_steps]
    assert executed == list(STEPS["spot_migration"][:3]), "no step may follow the stage that failed"
    assert optimization.execution_steps[-1].status == "failed"
    assert [step.name for step in optimization.rollback_steps] == [f"undo_{step}" for step in reversed(executed)]
    assert all(step.status == "completed" for step in optimization.rollback_steps)
    assert optimization.result is not None
    assert not optimization.result.success
    assert optimization.result.error is not None
    assert error in optimization.result.error
    assert optimization.result.original_state_restored
    assert acme.fleet(MIGRATED)["weights"] == weights
    assert acme.fleet(MIGRATED)["requests_dropped"] == 0
    assert cloud_state.running(acme.seeded) == running


def test_completed_migration_can_be_rolled_back(acme: Customer) -> None:
    running, before = cloud_state.running(acme.seeded), acme.fleet(MIGRATED)
    approval = acme.post(f"/recommendations/{acme.analyze('cost')[MIGRATED].id}/approve")
    optimization = acme.wait_for_optimization(approval["optimization_id"])
    assert optimization.status == "completed", optimization.result

    acme.post(f"/optimizations/{optimization.id}/rollback")
    rolled_back = acme.wait_for_rollback(optimization.id)

    assert rolled_back.status == "rolled_back", rolled_back.result
    assert [step.name for step in rolled_back.rollback_steps] == [
        f"undo_{s}" for s in reversed(STEPS["spot_migration"])
    ]
    assert rolled_back.result is not None
    assert rolled_back.result.original_state_restored
    assert cloud_state.running(acme.seeded) == running
    shown = [instance for instance in acme.infrastructure().instances if instance.state == "running"]
    assert sorted((instance.instance_type, instance.lifecycle) for instance in shown) == running
    after = acme.fleet(MIGRATED)
    assert after["requests_dropped"] == 0
    assert after["engine_args"] == before["engine_args"]
    assert sorted(after["weights"].values()) == sorted(before["weights"].values())
    assert [replica["state"] for replica in after["replicas"]] == ["ready"] * len(before["replicas"])
