"""A store or the cloud goes away for ten seconds, in each way, in each phase: callers are told, then all goes on."""

from collections.abc import Iterator

import httpx
import pytest

from fixtures import estates
from optiinfra.api.recommendations import Analysis
from optiinfra.domain.optimization import STEPS, undo_name
from testbed.waiting import wait_until
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.migration import (
    MOVED,
    assert_migrated_once,
    assert_undone_once,
    begun,
    finished,
    migrate,
    spoiled,
)
from tests.helpers.outage import assert_answered_throughout
from tests.helpers.private_platform import PrivatePlatform
from tests.helpers.proxy import FAILURES, Failure

ANALYSIS = "analysis"
UNDOING = undo_name("scale_to_50_percent")
MIGRATION = STEPS["spot_migration"]

# Where each is needed most. Every store fails in every way, every phase meets several of them.
PHASES = {
    "postgresql": (ANALYSIS, "create_spot_instances", "validate_canary", "full_migration", UNDOING),
    "clickhouse": ("validate_canary", "validate_50_percent", "full_migration", "terminate_ondemand", ANALYSIS),
    "redis": ("deploy_canary", "scale_to_50_percent", "terminate_ondemand", UNDOING, ANALYSIS),
    "qdrant": ("full_migration", "terminate_ondemand", ANALYSIS, "validate_50_percent", "scale_to_50_percent"),
    "cloud-front": ("terminate_ondemand", UNDOING, "create_spot_instances", ANALYSIS, "deploy_canary"),
}
CASES = [(away, how, phase) for away, phases in PHASES.items() for how, phase in zip(FAILURES, phases, strict=True)]


@pytest.fixture
def acme(private_platform: PrivatePlatform) -> Iterator[Customer]:
    with provisioned(private_platform.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer


def ready(customer: Customer) -> None:
    """The orchestrator and what it depends on answer again, by themselves."""
    wait_until(
        lambda: httpx.get(f"{customer.seeded.orchestrator_url}/ready", timeout=10),
        "the orchestrator to be ready again",
        30,
        accept=lambda answer: answer.status_code == 200,
    )


@pytest.mark.parametrize(("away", "how", "phase"), CASES, ids=["-".join(case) for case in CASES])
def test_what_goes_away_for_a_while_costs_nothing(
    private_platform: PrivatePlatform, acme: Customer, away: str, how: Failure, phase: str
) -> None:
    proxy, before, running = private_platform.proxies[away], acme.fleet(MOVED), cloud_truth.running(acme.seeded)
    if phase == ANALYSIS:
        analysis_id = acme.start_analysis("cost")
        path = f"/analyses/{analysis_id}"
    else:
        optimization_id = spoiled(acme) if phase == UNDOING else migrate(acme)
        path = f"/optimizations/{optimization_id}"
        begun(acme, optimization_id, phase)

    with proxy.failing(how):
        missed = assert_answered_throughout(
            acme,
            [
                lambda http: http.get(path),
                lambda http: http.get(f"/customers/{acme.id}/recommendations"),
                lambda http: http.get(f"/customers/{acme.id}/metrics", params={"metric_type": "throughput"}),
            ],
        )

    # Redis nobody misses; Qdrant and the cloud are asked by agents and steps alone.
    assert (missed > 0) == (away in ("postgresql", "clickhouse") and how != "slow") or how == "hanging"
    ready(acme)
    if phase == ANALYSIS:
        analysis: Analysis = acme.finished_analysis(analysis_id)
        assert analysis.status == "completed", analysis.error
        assert MOVED in acme.recommendations_of(analysis)
    elif phase == UNDOING:
        assert_undone_once(acme, finished(acme, optimization_id), MOVED, before, running)
    else:
        assert_migrated_once(acme, finished(acme, optimization_id), MOVED)
