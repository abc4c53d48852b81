"""A store or the cloud goes away for ten seconds, in each way, in each phase: callers are told, then all goes on."""

import httpx
import pytest

from optiinfra.domain.optimization import rollback_step
from testbed.waiting import wait_until
from tests.helpers.customer import Customer
from tests.helpers.migration import (
    MIGRATED,
    UNAVAILABLE,
    assert_migrated_once,
    assert_rolled_back_once,
    observe,
    start_failing_migration,
    start_migration,
    wait_for_optimization,
    wait_for_step,
)
from tests.helpers.outage import assert_answered_throughout
from tests.helpers.private_platform import PrivatePlatform
from tests.helpers.proxy import FAILURES, Failure

ANALYSIS = "analysis"
UNDOING = rollback_step("scale_to_50_percent")

# Where each is needed most. Every store fails in every way, every phase meets several of them.
PHASES = {
    "postgresql": (ANALYSIS, "create_spot_instances", "validate_canary", "full_migration", UNDOING),
    "clickhouse": ("validate_canary", "validate_50_percent", "full_migration", "terminate_ondemand", ANALYSIS),
    "redis": ("deploy_canary", "scale_to_50_percent", "terminate_ondemand", UNDOING, ANALYSIS),
    "qdrant": ("full_migration", "terminate_ondemand", ANALYSIS, "validate_50_percent", "scale_to_50_percent"),
    "cloud-front": ("terminate_ondemand", UNDOING, "create_spot_instances", ANALYSIS, "deploy_canary"),
}
CASES = [(away, how, phase) for away, phases in PHASES.items() for how, phase in zip(FAILURES, phases, strict=True)]

ASKED_BY_CALLERS = ("postgresql", "clickhouse")
"""What an answer needs. Redis nobody misses; Qdrant and the cloud are asked by agents and steps alone."""


def ready(customer: Customer) -> None:
    """The orchestrator and what it depends on answer again, by themselves."""
    wait_until(
        lambda: httpx.get(f"{customer.seeded.orchestrator_url}/ready", timeout=10),
        "the orchestrator to be ready again",
        30,
        accept=lambda answer: answer.status_code == 200,
        transient=UNAVAILABLE,
    )


@pytest.mark.parametrize(("away", "how", "phase"), CASES, ids=["-".join(case) for case in CASES])
def test_what_goes_away_for_a_while_costs_nothing(
    private_platform: PrivatePlatform, private_acme: Customer, away: str, how: Failure, phase: str
) -> None:
    customer, before = private_acme, observe(private_acme)
    if phase == ANALYSIS:
        analysis_id = customer.start_analysis("cost")
        path = f"/analyses/{analysis_id}"
    else:
        optimization_id = start_failing_migration(customer) if phase == UNDOING else start_migration(customer)
        path = f"/optimizations/{optimization_id}"
        wait_for_step(customer, optimization_id, phase)

    with private_platform.proxies[away].failing(how):
        missed = assert_answered_throughout(
            customer,
            [
                lambda http: http.get(path),
                lambda http: http.get(f"/customers/{customer.id}/recommendations"),
                lambda http: http.get(f"/customers/{customer.id}/metrics", params={"metric_type": "throughput"}),
            ],
        )

    assert (missed > 0) == (away in ASKED_BY_CALLERS and how != "slow")
    ready(customer)
    if phase == ANALYSIS:
        analysis = customer.wait_for_analysis(analysis_id)
        assert analysis.status == "completed", analysis.error
        assert MIGRATED in customer.recommendations_of(analysis)
    elif phase == UNDOING:
        assert_rolled_back_once(customer, wait_for_optimization(customer, optimization_id), before)
    else:
        assert_migrated_once(customer, wait_for_optimization(customer, optimization_id), before)
