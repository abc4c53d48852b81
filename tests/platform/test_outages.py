"""A store or the cloud is unavailable for ten seconds, in every way and phase: callers get 503, then work continues."""

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
ROLLBACK = rollback_step("scale_to_50_percent")

# The phases that need each store most. Every store fails in every way, and every phase sees several outages.
PHASES = {
    "postgresql": (ANALYSIS, "create_spot_instances", "validate_canary", "full_migration", ROLLBACK),
    "clickhouse": ("validate_canary", "validate_50_percent", "full_migration", "terminate_ondemand", ANALYSIS),
    "redis": ("deploy_canary", "scale_to_50_percent", "terminate_ondemand", ROLLBACK, ANALYSIS),
    "qdrant": ("full_migration", "terminate_ondemand", ANALYSIS, "validate_50_percent", "scale_to_50_percent"),
    "cloud-front": ("terminate_ondemand", ROLLBACK, "create_spot_instances", ANALYSIS, "deploy_canary"),
}
CASES = [
    (store, failure, phase) for store, phases in PHASES.items() for failure, phase in zip(FAILURES, phases, strict=True)
]

NEEDED_BY_REQUESTS = ("postgresql", "clickhouse")
"""Stores that requests need. They work without Redis; only agents and steps use Qdrant and the cloud."""


def wait_until_ready(customer: Customer) -> None:
    """Wait until the orchestrator reports that its dependencies are available again."""
    wait_until(
        lambda: httpx.get(f"{customer.seeded.orchestrator_url}/ready", timeout=10),
        "the orchestrator to be ready again",
        30,
        accept=lambda answer: answer.status_code == 200,
        transient=UNAVAILABLE,
    )


@pytest.mark.parametrize(("store", "failure", "phase"), CASES, ids=["-".join(case) for case in CASES])
def test_work_during_an_outage_of_a_store_completes_afterwards(
    private_platform: PrivatePlatform, private_acme: Customer, store: str, failure: Failure, phase: str
) -> None:
    customer, before = private_acme, observe(private_acme)
    if phase == ANALYSIS:
        analysis_id = customer.start_analysis("cost")
        path = f"/analyses/{analysis_id}"
    else:
        optimization_id = start_failing_migration(customer) if phase == ROLLBACK else start_migration(customer)
        path = f"/optimizations/{optimization_id}"
        wait_for_step(customer, optimization_id, phase)

    with private_platform.proxies[store].failing(failure):
        unavailable = assert_answered_throughout(
            customer,
            [
                lambda http: http.get(path),
                lambda http: http.get(f"/customers/{customer.id}/recommendations"),
                lambda http: http.get(f"/customers/{customer.id}/metrics", params={"metric_type": "throughput"}),
            ],
        )

    assert (unavailable > 0) == (store in NEEDED_BY_REQUESTS and failure != "slow")
    wait_until_ready(customer)
    if phase == ANALYSIS:
        analysis = customer.wait_for_analysis(analysis_id)
        assert analysis.status == "completed", analysis.error
        assert MIGRATED in customer.recommendations_of(analysis)
    elif phase == ROLLBACK:
        assert_rolled_back_once(customer, wait_for_optimization(customer, optimization_id), before)
    else:
        assert_migrated_once(customer, wait_for_optimization(customer, optimization_id), before)
