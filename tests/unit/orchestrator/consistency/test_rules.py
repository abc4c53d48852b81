"""Which references dangle, and which are merely stale, in progress, or another customer's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optiinfra.api.consistency import Dangling
from optiinfra.clouds.protocol import CUSTOMER_TAG, STEP_TAG, CloudInstance
from optiinfra.orchestrator.consistency import rules
from optiinfra.orchestrator.consistency.rules import Account, AccountContents, Known, PlacedReplica, RunningInstance

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
HERE = Account("acct_1", "cust_1", "aws", "us-east-1")
KNOWN = Known(
    customers={"cust_1"},
    deployments={("cust_1", "dep_1")},
    outcomes={"opt_done": "cust_1", "opt_busy": "cust_1"},
    optimizations={"opt_done": "completed", "opt_busy": "running", "opt_back": "rolled_back", "opt_odd": "failed"},
    agents={"agent_1"},
)


def instance(instance_id: str, state: Any = "running", **tags: str) -> CloudInstance:
    return CloudInstance(instance_id, "aws", "us-east-1", "g5.xlarge", "spot", state, tags)


def created_for(step: str, customer: str = "cust_1", state: Any = "running") -> AccountContents:
    return AccountContents(HERE, [instance("i-1", state, **{STEP_TAG: step, CUSTOMER_TAG: customer})], {})


def ids(found: list[Dangling]) -> list[str]:
    return [one.id for one in found]


def test_dangling_series_of_known_customer_and_deployment_is_empty() -> None:
    assert rules.dangling_series("samples", {("cust_1", ""), ("cust_1", "dep_1")}, KNOWN) == []


def test_dangling_series_of_unknown_customer_or_deployment_dangle() -> None:
    found = rules.dangling_series("samples", {("cust_2", ""), ("cust_2", "dep_1"), ("cust_1", "dep_2")}, KNOWN)
    assert [(one.id, one.refers_to) for one in found] == [
        ("cust_1/dep_2", "deployment dep_2"),
        ("cust_2/", "customer cust_2"),
        ("cust_2/dep_1", "customer cust_2"),
    ]


def test_dangling_points_without_an_outcome_of_the_same_customer_dangle() -> None:
    points = {"p1": ("cust_1", "opt_done"), "p2": ("cust_2", "opt_done"), "p3": ("cust_1", "opt_gone"), "p4": ("", "")}
    assert ids(rules.dangling_points(points, KNOWN)) == ["p2", "p3", "p4"]


def test_outcomes_without_point_dangle_once_the_optimization_has_ended() -> None:
    assert ids(rules.outcomes_without_point({}, KNOWN)) == ["opt_done"], "the other optimization has not ended"
    assert rules.outcomes_without_point({"p1": ("cust_1", "opt_done")}, KNOWN) == []


def test_dangling_presence_of_an_unknown_agent_dangles() -> None:
    assert ids(rules.dangling_presence({"agent_1", "agent_2"}, KNOWN)) == ["agent_2"]


@pytest.mark.parametrize("step", ["opt_busy:targets", "opt_done:targets", "opt_back:restored", "opt_odd:targets"])
def test_dangling_step_resources_of_an_optimization_that_keeps_them_is_empty(step: str) -> None:
    assert rules.dangling_step_resources(created_for(step), KNOWN) == []


def test_dangling_step_resources_targets_after_a_rollback_dangle() -> None:
    (found,) = rules.dangling_step_resources(created_for("opt_back:targets"), KNOWN)
    assert (found.store, found.kind, found.id) == ("cloud", "step_instances", "i-1")
    assert found.refers_to == "optimization opt_back, which is rolled_back"


def test_dangling_step_resources_of_an_unknown_optimization_dangle_unless_terminated() -> None:
    assert ids(rules.dangling_step_resources(created_for("opt_gone:targets"), KNOWN)) == ["i-1"]
    assert ids(rules.dangling_step_resources(created_for("opt_gone:targets", state="stopped"), KNOWN)) == ["i-1"]
    assert rules.dangling_step_resources(created_for("opt_gone:targets", state="terminated"), KNOWN) == []


def test_dangling_step_resources_of_a_former_customer_is_empty() -> None:
    assert rules.dangling_step_resources(created_for("opt_gone:targets", customer="cust_former"), KNOWN) == []


def test_dangling_step_resources_include_open_spot_requests() -> None:
    requests = {"sir-1": {STEP_TAG: "opt_back:targets"}, "sir-2": {STEP_TAG: "opt_busy:targets"}}
    (found,) = rules.dangling_step_resources(AccountContents(HERE, [instance("i-own")], requests), KNOWN)
    assert (found.kind, found.id) == ("step_spot_requests", "sir-1")


@pytest.mark.parametrize("state", ["running", "stopped", "terminated"])
def test_missing_instances_that_the_account_lists_is_empty(state: Any) -> None:
    running = [RunningInstance("i-1", "acct_1", NOW)]
    assert rules.missing_instances(running, [AccountContents(HERE, [instance("i-1", state)], {})], NOW) == []


def test_missing_instances_seen_recently_dangle() -> None:
    running = [
        RunningInstance("i-recently", "acct_1", NOW - timedelta(minutes=10)),
        RunningInstance("i-long-ago", "acct_1", NOW - timedelta(minutes=70)),
        RunningInstance("i-unseen", "acct_2", NOW),  # its account could not be asked
    ]
    assert ids(rules.missing_instances(running, [AccountContents(HERE, [], {})], NOW)) == ["i-recently"]


def replica(name: str, instance_id: str, **changes: str) -> PlacedReplica:
    where = {"deployment_id": "dep_1", "customer_id": "cust_1", "provider": "aws", "region": "us-east-1"} | changes
    return PlacedReplica(name, instance_id, **where)


def test_replicas_without_instance_dangle() -> None:
    view = AccountContents(HERE, [instance("i-1"), instance("i-2", "terminated")], {})
    replicas = [replica("rep_1", "i-1"), replica("rep_2", "i-2"), replica("rep_3", "i-3")]
    assert ids(rules.replicas_without_instance(replicas, [view], [HERE])) == ["dep_1/rep_3"]


def test_replicas_without_instance_where_an_account_did_not_answer_is_empty() -> None:
    replicas = [replica("rep_1", "i-3"), replica("rep_2", "i-4", region="eu-west-1")]
    second = Account("acct_2", "cust_1", "aws", "us-east-1")
    view = AccountContents(HERE, [], {})
    assert ids(rules.replicas_without_instance(replicas, [view], [HERE])) == ["dep_1/rep_1"]
    assert rules.replicas_without_instance(replicas, [view], [HERE, second]) == [], "the second account may have it"


def dangling(name: str, kind: str = "events", why: str = "optimization opt_1") -> Dangling:
    return Dangling(store="postgresql", kind=kind, id=name, refers_to=why)


def test_confirmed_keeps_what_dangles_in_both_passes() -> None:
    first, second = [dangling("half created"), dangling("lost")], [dangling("lost"), dangling("half deleted")]
    assert ids(rules.confirmed(first, second)) == ["lost"]


def test_confirmed_takes_unreachable_from_the_last_pass() -> None:
    away = [dangling("known", rules.UNREACHABLE, "refused, request 1")]
    still = [dangling("known", rules.UNREACHABLE, "refused, request 2")]
    assert rules.confirmed(away, still) == still
    assert rules.confirmed([dangling("lost")], still) == still
    assert rules.confirmed(away, []) == []
