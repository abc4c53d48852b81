"""Engine tuning: engines get other arguments one by one, beside a canary, and get the old ones back on a failure.

No agent recommends it yet: the draft of a validated spot migration is rewritten in the database.
"""

import json
from typing import Any

import pytest

from optiinfra.domain.optimization import STEPS, rollback_step
from tests.helpers import cloud_state
from tests.helpers.customer import Customer
from tests.helpers.database import update_one
from tests.helpers.migration import MIGRATED, wait_for_step

TUNING = STEPS["engine_tuning"]


def start_tuning(customer: Customer, **changed: Any) -> str:
    """Approve other engine arguments for the deployment; the optimization's id."""
    recommendation = customer.analyze("cost")[MIGRATED]
    parameters = {
        "deployment": MIGRATED,
        "engine_args": customer.fleet(MIGRATED)["engine_args"] | changed,
        "source_instance_ids": recommendation.parameters["source_instance_ids"],
    }
    draft = {"type": "engine_tuning", "parameters": parameters, "estimated_savings": 0.0}
    statement = "UPDATE recommendations SET draft = draft || %s::jsonb WHERE id = %s"
    update_one(customer.environment, statement, json.dumps(draft), recommendation.id)
    approval = customer.post(f"/recommendations/{recommendation.id}/approve")
    return str(approval["optimization_id"])


def engine_args(customer: Customer) -> list[dict[str, Any]]:
    """Arguments of every replica, as its gateway tells them."""
    return [replica["engine_args"] for replica in customer.fleet(MIGRATED)["replicas"]]


def test_engine_tuning_restarts_every_engine_and_drops_no_request(acme: Customer) -> None:
    before, running = acme.fleet(MIGRATED), cloud_state.running(acme.seeded)
    optimization = acme.wait_for_optimization(start_tuning(acme, enable_prefix_caching=True))

    assert optimization.status == "completed", optimization.result
    assert tuple(step.name for step in optimization.execution_steps) == TUNING
    after = acme.fleet(MIGRATED)
    assert engine_args(acme) == [before["engine_args"] | {"enable_prefix_caching": True}] * 2
    assert [replica["replica_id"] for replica in after["replicas"]] == [one["replica_id"] for one in before["replicas"]]
    assert after["weights"] == before["weights"]
    assert after["requests_dropped"] == 0
    assert cloud_state.running(acme.seeded) == running
    assert optimization.result is not None
    assert optimization.result.requests_dropped == 0
    assert optimization.result.cost_after == optimization.result.cost_before
    assert optimization.result.quality_after is not None


@pytest.mark.parametrize("step", ["deploy_canary", "full_rollout"])
def test_engine_tuning_with_slow_canary_restores_the_old_arguments(acme: Customer, step: str) -> None:
    before, running = acme.fleet(MIGRATED), cloud_state.running(acme.seeded)
    optimization_id = start_tuning(acme, enable_prefix_caching=True)
    wait_for_step(acme, optimization_id, step)
    acme.inject_fault({"kind": "canary_latency", "factor": 6.0, "deployment": MIGRATED})

    optimization = acme.wait_for_optimization(optimization_id)

    assert optimization.status == "rolled_back", optimization.result
    executed = [one.name for one in optimization.execution_steps]
    assert [one.name for one in optimization.rollback_steps] == [rollback_step(one) for one in reversed(executed)]
    assert optimization.result is not None
    assert "the performance agent rejected the stage" in str(optimization.result.error)
    assert optimization.result.original_state_restored
    assert engine_args(acme) == [before["engine_args"]] * 2
    assert acme.fleet(MIGRATED)["weights"] == before["weights"]
    assert acme.fleet(MIGRATED)["requests_dropped"] == 0
    assert cloud_state.running(acme.seeded) == running


def test_completed_engine_tuning_is_rolled_back_on_request(acme: Customer) -> None:
    before, running = acme.fleet(MIGRATED), cloud_state.running(acme.seeded)
    optimization_id = start_tuning(acme, enable_prefix_caching=True)
    assert acme.wait_for_optimization(optimization_id).status == "completed"

    acme.post(f"/optimizations/{optimization_id}/rollback")
    optimization = acme.wait_for_rollback(optimization_id)

    assert optimization.status == "rolled_back", optimization.result
    assert [one.name for one in optimization.rollback_steps] == [rollback_step(one) for one in reversed(TUNING)]
    assert optimization.result is not None
    assert optimization.result.original_state_restored
    assert engine_args(acme) == [before["engine_args"]] * 2
    assert acme.fleet(MIGRATED)["weights"] == before["weights"]
    assert cloud_state.running(acme.seeded) == running
