"""The rule for idle shutdowns: which instances are recommended, for what savings, and why others are kept."""

from datetime import timedelta
from typing import Any

import pytest

from optiinfra.agents.cost_agent import idle_shutdown
from optiinfra.agents.cost_agent.finding import Finding
from optiinfra.agents.cost_agent.idle_shutdown import confidence
from optiinfra.api.agents import AnalyzeTask, Draft
from optiinfra.api.customers import Infrastructure, Instance, Preferences
from optiinfra.api.parameters import IdleShutdownParameters
from optiinfra.domain.outcomes import DIMENSIONS, Outcome
from tests.unit.agents.estate import NOW, deployment, idle_instance, infrastructure, instances
from tests.unit.agents.fakes import FakeOutcomes, fake_sources

pytestmark = pytest.mark.anyio
DAY = timedelta(hours=24)


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_shutdown, "now", lambda: NOW)


async def found_in(
    estate: Infrastructure, outcomes: list[Outcome] | None = None, **preferences: Any
) -> tuple[list[Finding], FakeOutcomes]:
    memory = FakeOutcomes(outcomes or [])
    task = AnalyzeTask(task_id="t", customer_id="cust_1", preferences=Preferences(**preferences), infrastructure=estate)
    return await idle_shutdown.find(task, fake_sources(outcomes=memory), grace=DAY), memory


def estate_with(*idle: Instance) -> Infrastructure:
    """A deployment on two instances, and these."""
    owned = instances()
    return infrastructure([*owned, *idle], deployment(owned))


async def drafts_for(*idle: Instance, outcomes: list[Outcome] | None = None) -> list[Draft]:
    findings, _ = await found_in(estate_with(*idle), outcomes)
    return [finding.draft for finding in findings if finding.draft is not None]


async def test_idle_instances_are_recommended_with_their_cost_as_savings() -> None:
    findings, outcomes = await found_in(estate_with(idle_instance("i-9"), idle_instance("i-8", monthly_cost=3650.0)))
    assert [finding.summary for finding in findings] == [
        "2 idle instances in us-east-1 (account 111122223333): about $10,950 a month if shut down"
    ]
    draft = findings[0].draft
    assert draft is not None
    assert (draft.type, draft.risk_level, draft.deployment_id) == ("idle_shutdown", "low", None)
    assert draft.estimated_savings == pytest.approx(10_950.0)
    assert draft.modelled == {"savings": pytest.approx(10_950.0)}
    assert draft.predicted.model_dump() == {"monthly_cost": 0.0, "p95_latency_ms": None, "quality_score": None}
    assert draft.affected_resources == ["i-8", "i-9"]
    parameters = IdleShutdownParameters.model_validate(draft.parameters)
    assert (parameters.provider, parameters.region) == ("aws", "us-east-1")
    assert parameters.instance_ids == ["i-8", "i-9"]
    assert parameters.hourly_cost == pytest.approx(15.0)
    assert len(draft.features) == DIMENSIONS
    assert outcomes.searches == [("cust_1", "idle_shutdown")]


async def test_title_and_explanation_name_count_types_cost_and_time() -> None:
    (draft,) = await drafts_for(idle_instance("i-8"), idle_instance("i-9", instance_type="p4d.24xlarge"))
    assert draft.title == "Shut down 2 idle instances in us-east-1"
    for part in ("1 g5.12xlarge, 1 p4d.24xlarge", "$14,600 a month", "since 2026-11-24 12:00 UTC"):
        assert part in draft.explanation


async def test_idle_since_of_a_group_is_the_latest_of_its_instances() -> None:
    (draft,) = await drafts_for(idle_instance("i-8"), idle_instance("i-9", idle_since=NOW - 1.5 * DAY))
    assert IdleShutdownParameters.model_validate(draft.parameters).idle_since == NOW - 1.5 * DAY


async def test_instances_of_several_accounts_and_regions_get_a_draft_each() -> None:
    drafts = await drafts_for(
        idle_instance("i-6"),
        idle_instance("i-7", account_id="444455556666"),
        idle_instance("i-8", region="us-west-2"),
        idle_instance("i-9"),
    )
    assert sorted(draft.affected_resources for draft in drafts) == [["i-6", "i-9"], ["i-7"], ["i-8"]]


@pytest.mark.parametrize("state", ["starting", "ready", "draining", "dead"])
async def test_instance_that_hosts_an_engine_is_not_idle(state: str) -> None:
    hosting = idle_instance()
    serving = deployment([hosting])
    engines = [serving.engines[0].model_copy(update={"state": state})]
    findings, _ = await found_in(infrastructure([hosting], serving.model_copy(update={"engines": engines})))
    assert findings == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"idle_since": NOW - timedelta(minutes=3)}, "idle for 3 min, recommended after 24 h"),
        ({"idle_since": NOW - timedelta(hours=23, minutes=59)}, "idle for 23 h, recommended after 24 h"),
        ({"idle_since": None}, "not reported idle yet, recommended after 24 h"),
        ({"monthly_cost": None}, "its price is not known"),
        ({"lifecycle": "spot"}, "it is a spot instance, which cannot be stopped and started again"),
        ({"provider": "gcp"}, "your preferences do not list gcp among the providers"),
    ],
)
async def test_idle_instance_that_is_kept_is_explained(changes: dict[str, Any], reason: str) -> None:
    findings, _ = await found_in(estate_with(idle_instance(**changes)))
    assert [finding.draft for finding in findings] == [None]
    assert findings[0].summary.startswith(f"i-9 (g5.12xlarge): {reason}")


async def test_instance_is_recommended_exactly_at_the_end_of_the_grace_period() -> None:
    assert len(await drafts_for(idle_instance(idle_since=NOW - DAY))) == 1
    assert await drafts_for(idle_instance(idle_since=NOW - DAY + timedelta(seconds=1))) == []


@pytest.mark.parametrize("state", ["pending", "stopped", "terminated"])
async def test_instance_that_does_not_run_is_ignored(state: str) -> None:
    findings, _ = await found_in(estate_with(idle_instance(state=state, monthly_cost=0.0)))
    assert findings == []


@pytest.mark.parametrize(("share", "expected"), [(0.5, "below"), (1.0, "equal"), (3.0, "equal")])
async def test_past_outcomes_correct_savings_but_never_above_the_cost(share: float, expected: str) -> None:
    past = Outcome("opt_1", 0.99, {"savings": 1000.0}, {"savings": 1000.0 * share})
    (draft,) = await drafts_for(idle_instance(), outcomes=[past])
    assert draft.similar_outcomes == ["opt_1"]
    assert draft.modelled == {"savings": 7300.0}
    if expected == "below":
        assert 3650.0 < draft.estimated_savings < 7300.0
    else:
        assert draft.estimated_savings == pytest.approx(7300.0)
    assert "as measured after a similar change of yours" in draft.explanation


def test_confidence_grows_with_idle_time_and_outcomes() -> None:
    outcome = Outcome("opt_1", 1.0, {}, {})
    assert confidence(DAY, DAY, []) == 0.8
    assert 0.8 < confidence(1.5 * DAY, DAY, []) < confidence(3 * DAY, DAY, []) < 0.95
    assert confidence(DAY, DAY, [outcome]) == confidence(2 * DAY, DAY, [])
