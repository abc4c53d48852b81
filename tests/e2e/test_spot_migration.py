"""Scenario 1: a deployment moves from on-demand to spot instances, and the platform learns from the outcome."""

from contextlib import closing
from itertools import combinations
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient, models

from fixtures.estates import load_deployments
from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import STEPS
from testbed.scenario import Scenario
from tests.helpers import cloud_state
from tests.helpers.assertions import (
    assert_cost_reduced,
    assert_multi_agent_coordination,
    assert_optimization_successful,
    assert_quality_maintained,
)
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES
from tests.helpers.stores import Stores
from tests.helpers.traffic import WatchedTraffic

SHARES = {
    "deploy_canary": {0.0, 0.2},
    "validate_canary": {0.2},
    "scale_to_50_percent": {0.2, 0.5},
    "validate_50_percent": {0.5},
    "full_migration": {0.5, 1.0},
    "terminate_ondemand": {1.0},
}
"""The shares of the traffic that the new replicas may have during each step."""
DEPLOYED_AND_JUDGED = (
    ("deploy_canary", "validate_canary"),
    ("scale_to_50_percent", "validate_50_percent"),
    ("full_migration", "full_migration"),
)
"""For each stage the step that deploys its replicas, and the one that judges them."""
MIGRATED, REFUSED, SIMILAR = "vllm-prod-1", "vllm-prod-2", "vllm-batch-1"


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.phases(
    "Recording initial state",
    "Triggering cost agent analysis",
    "Waiting for recommendation",
    "Validating with the other agents",
    "Approving as the customer",
    "Executing the blue-green migration",
    "Checking quality",
    "Checking savings",
    "Checking the learning loop",
)
def test_complete_spot_migration_workflow(acme: Customer, scenario: Scenario, environment: dict[str, Any]) -> None:
    """From analysis to outcome: validated, approved, and executed without a dropped request."""
    with scenario.phase("Recording initial state"):
        initial_cost = cloud_state.monthly_cost(acme.seeded)
        estate = acme.infrastructure()
        assert sum(i.monthly_cost or 0.0 for i in estate.instances) == pytest.approx(initial_cost, rel=1e-6)
        assert initial_cost == pytest.approx(120_000, rel=0.01)
        assert cloud_state.running(acme.seeded, MIGRATED) == [("p4de.24xlarge", "on-demand")] * 2
        deployment_cost = cloud_state.monthly_cost(acme.seeded, MIGRATED)
        slo = estate.deployment(acme.deployment_id(MIGRATED)).slo
        scenario.say(f"Initial monthly cost: ${initial_cost:,.0f}")
        scenario.say(f"{MIGRATED}: ${deployment_cost:,.0f} of it, on 2 on-demand p4de.24xlarge")

    with scenario.phase("Triggering cost agent analysis"):
        analysis_id = acme.start_analysis("cost")
        scenario.say(f"Analysis ID: {analysis_id}")

    with scenario.phase("Waiting for recommendation"):
        analysis = acme.wait_for_analysis(analysis_id)
        assert analysis.status == "completed", f"the analysis failed: {analysis.error}"
        found = acme.recommendations_of(analysis)
        assert set(found) == {MIGRATED, REFUSED}
        recommendation, refused = found[MIGRATED], found[REFUSED]
        assert recommendation.type == "spot_migration"
        assert recommendation.risk_level in ("low", "medium")
        assert recommendation.estimated_savings == pytest.approx(18_000, rel=0.05)
        scenario.announce("Recommendation generated")
        scenario.say(recommendation.title)
        scenario.say(f"Estimated savings: ${recommendation.estimated_savings:,.0f}/month")
        scenario.say(f"Risk: {recommendation.risk_level}, confidence {recommendation.confidence:.0%}")

    with scenario.phase("Validating with the other agents"):
        assert_multi_agent_coordination(recommendation, "cost", {"performance": True, "application": True})
        baseline = next(v for v in recommendation.validations if v.agent_type == "application")
        assert baseline.baseline_established
        assert_multi_agent_coordination(refused, "cost", {"performance": False, "application": True})
        response = acme.http.post(f"/recommendations/{refused.id}/approve")
        assert response.status_code == 409, f"a refused recommendation was approved: {response.text}"
        assert "performance agent refused it" in response.json()["detail"]
        for validation in recommendation.validations:
            scenario.say(f"{validation.agent_type} agent agrees: {validation.reason}")
        scenario.say(f"{REFUSED} is not approved: {response.json()['detail']}")

    traffic = WatchedTraffic(acme, MIGRATED)
    with acme.live_events() as live, traffic.watched():
        with scenario.phase("Approving as the customer"):
            approval = acme.post(f"/recommendations/{recommendation.id}/approve")
            again = acme.post(f"/recommendations/{recommendation.id}/approve")
            assert approval == again, "approving twice must start one optimization"
            assert approval["status"] == "approved"
            scenario.say(f"Optimization ID: {approval['optimization_id']}")

        with scenario.phase("Executing the blue-green migration"):
            optimization = acme.wait_for_optimization(approval["optimization_id"])
            result = assert_optimization_successful(optimization)
            for step in optimization.execution_steps:
                assert step.completed_at is not None
                scenario.say(f"{step.name}: {(step.completed_at - step.started_at).total_seconds():.1f} s")
            _check_shares(optimization, traffic)
            _check_evidence(environment, acme, optimization)
            events = live.wait_for("optimization_completed")
            assert [event.seq for event in events] == list(range(live.after + 1, live.after + 1 + len(events)))
            started = tuple(event.step for event in events if event.event_type == "step_started")
            assert started == STEPS["spot_migration"], f"steps in the live events: {started}"
            gateway = acme.fleet(MIGRATED)
            assert gateway["requests_dropped"] == result.requests_dropped == 0
            assert cloud_state.running(acme.seeded, MIGRATED) == [("p4de.24xlarge", "spot")] * 2
            scenario.say(f"Requests served {gateway['requests_served']:,}, dropped {gateway['requests_dropped']}")

    with scenario.phase("Checking quality"):
        assert_quality_maintained(result, slo.quality)
        assert result.p95_before is not None
        assert result.p95_after is not None
        assert result.p95_after <= slo.p95_latency_ms
        scenario.say(f"Quality {result.quality_before:.1%} -> at least {result.quality_lower_bound:.1%}")
        scenario.say(
            f"p95 {result.p95_before:,.0f} ms -> {result.p95_after:,.0f} ms, objective {slo.p95_latency_ms:,.0f}"
        )

    with scenario.phase("Checking savings"):
        cost_after, deployment_after = (cloud_state.monthly_cost(acme.seeded, name) for name in (None, MIGRATED))
        assert_cost_reduced(
            deployment_cost,
            deployment_after,
            at_least_percent=40,
            predicted_savings=result.predicted_savings,
            actual_savings=result.actual_savings,
        )
        assert result.cost_before == pytest.approx(deployment_cost, abs=0.02)
        assert result.cost_after == pytest.approx(deployment_after, abs=0.02)
        assert result.actual_savings is not None
        assert result.actual_savings == pytest.approx(initial_cost - cost_after, abs=0.05)
        assert _dashboard(acme)["current_spend"] == pytest.approx(cost_after, abs=0.05)
        assert _dashboard(acme)["realized_savings"] == pytest.approx(result.actual_savings)
        scenario.say(f"Monthly cost now: ${cost_after:,.0f}, {_percent(initial_cost, cost_after)} of the estate less")
        scenario.say(
            f"{MIGRATED}: ${deployment_after:,.0f}, {_percent(deployment_cost, deployment_after)} of its own less"
        )
        scenario.say(f"Saved ${result.actual_savings:,.0f}/month, predicted ${result.predicted_savings:,.0f}/month")

    with scenario.phase("Checking the learning loop"):
        acme.add_deployments(load_deployments(ESTATES / "addition.yaml"))
        informed = acme.analyze("cost")[SIMILAR]
        _delete_outcomes(environment, acme)
        naive = acme.analyze("cost")[SIMILAR]
        assert informed.similar_outcomes == [optimization.id]
        assert naive.similar_outcomes == []
        # The number and type of instances is the same, so this migration saves what the first one saved.
        measured = result.actual_savings
        closer, further = (abs(found.estimated_savings - measured) for found in (informed, naive))
        assert closer < further, f"off by ${closer:,.2f} with the outcome known, by ${further:,.2f} without"
        scenario.say(f"{SIMILAR}: ${informed.estimated_savings:,.2f}/month predicted, knowing the outcome")
        scenario.say(f"without it ${naive.estimated_savings:,.2f}, measured before ${measured:,.2f}")


def _check_shares(optimization: Optimization, traffic: WatchedTraffic) -> None:
    """The new replicas had their share of the traffic in each step, and in those that judge them no other."""
    shares = {step.name: traffic.shares_during(step) for step in optimization.execution_steps}
    for name, allowed in SHARES.items():
        assert shares[name] <= allowed, f"{name}: the new replicas had {sorted(shares[name])} of the traffic"
    assert [max(shares[judged], default=None) for _, judged in DEPLOYED_AND_JUDGED] == [0.2, 0.5, 1.0]


def _check_evidence(environment: dict[str, Any], acme: Customer, optimization: Optimization) -> None:
    """The latency of each stage was judged by requests of its new replicas during that stage, and by no others."""
    steps = {step.name: step for step in optimization.execution_steps}
    with closing(Stores(environment)) as stores:
        for deployed, judged in DEPLOYED_AND_JUDGED:
            step, replicas = steps[judged], steps[deployed].detail["replica_ids"]
            assert step.completed_at is not None
            counted = stores.requests_counted(acme.id, replicas, step.started_at, step.completed_at)
            # The agent takes all measurements from one to another.
            ranges = combinations(range(len(counted) + 1), 2)
            possible = {sum(counted[first:end]) for first, end in ranges}
            used = step.detail["verdicts"]["performance"]["observations"]
            assert used in possible, f"{judged}: {used} requests were judged, its replicas answered {counted}"


def _dashboard(customer: Customer) -> dict[str, Any]:
    answer = httpx.get(
        f"{customer.seeded.portal_url}/portal/customers/{customer.id}/dashboard",
        headers={"Authorization": customer.http.headers["Authorization"]},
        timeout=10,
    )
    assert answer.status_code == 200, f"the dashboard answered {answer.status_code}: {answer.text}"
    return dict(answer.json())


def _delete_outcomes(environment: dict[str, Any], customer: Customer) -> None:
    client = QdrantClient(
        url=environment["urls"]["qdrant"],
        api_key=environment["credentials"]["qdrant_api_key"],
        check_compatibility=False,
    )
    own = models.FieldCondition(key="customer_id", match=models.MatchValue(value=customer.id))
    assert client.count("outcomes", models.Filter(must=[own])).count == 1, "one optimization stores one outcome"
    client.delete("outcomes", models.FilterSelector(filter=models.Filter(must=[own])))


def _percent(before: float, after: float) -> str:
    return f"{(before - after) / before:.1%}"
