"""Performance test 2: recommendations are stored within two seconds after their analysis was requested."""

import time
from dataclasses import dataclass

import pytest
from websockets.sync.client import ClientConnection

from optiinfra.api import calls
from testbed.figures import Figures, percentile
from tests.helpers.customer import Customer
from tests.helpers.live import connect_live, receive

pytestmark = pytest.mark.performance

ANALYSES = 20
BUDGET_SECONDS = 2.0


@dataclass(frozen=True)
class Timed:
    """One analysis: seconds until its recommendations were stored, and until it was completed."""

    analysis_id: str
    recommendation_ids: list[str]
    stored: float
    completed: float


def test_recommendations_are_stored_within_two_seconds(acme: Customer, figures: Figures) -> None:
    """Measured at the customer: from the request to the live event, which follows the commit."""
    after = acme.send(calls.latest_event(acme.id)).seq
    token = acme.http.headers["Authorization"].removeprefix("Bearer ")
    with connect_live(acme.seeded.orchestrator_url, f"{acme.id}?after={after}", token) as live:
        analyses: list[Timed] = []
        # The second one that is too slow decides.
        while len(analyses) < ANALYSES and sum(one.stored > BUDGET_SECONDS for one in analyses) < 2:
            analyses.append(_timed_analysis(acme, live))
    stored = [analysis.stored for analysis in analyses]
    completed = [analysis.completed for analysis in analyses]
    figures.record("recommendations stored, median", percentile(stored, 50), "s")
    figures.record("recommendations stored, p95", percentile(stored, 95), "s", at_most=BUDGET_SECONDS)
    figures.record("validated and completed, p95", percentile(completed, 95), "s")
    figures.plot(stored=stored, completed=completed)
    pending = {found.id for found in acme.send(calls.recommendations(acme.id)) if found.status == "pending"}
    assert pending, "none is pending"
    assert pending <= set(analyses[-1].recommendation_ids), "each analysis supersedes the one before it"
    assert figures.missed() == []


def _timed_analysis(customer: Customer, live: ClientConnection) -> Timed:
    began = time.perf_counter()
    analysis_id = customer.start_analysis("cost")
    stored, created = 0.0, []
    while True:
        (event,) = receive(live, 1)
        if event["event_type"] == "recommendation_created":
            stored = stored or time.perf_counter() - began
            created.append(event["payload"]["recommendation_id"])
        elif event["event_type"] == "analysis_completed":
            break
    completed = time.perf_counter() - began
    analysis = customer.send(calls.analysis(analysis_id))
    assert analysis.status == "completed", f"the analysis failed: {analysis.error}"
    assert sorted(created) == sorted(analysis.recommendation_ids)
    assert len(created) == len(customer.seeded.deployments) == 2
    return Timed(analysis_id, created, stored, completed)
