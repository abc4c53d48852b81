"""What dangles and what does not: stale, under way, somebody else's, or never seen."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optiinfra.api.consistency import Dangling
from optiinfra.clouds.protocol import CUSTOMER_TAG, STEP_TAG, CloudInstance
from optiinfra.orchestrator.consistency import rules
from optiinfra.orchestrator.consistency.rules import Account, CloudView, Known, PlacedReplica, RunningInstance

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


def made_for(step: str, customer: str = "cust_1", state: Any = "running") -> CloudView:
    return CloudView(HERE, [instance("i-1", state, **{STEP_TAG: step, CUSTOMER_TAG: customer})], {})


def ids(found: list[Dangling]) -> list[str]:
    return [one.id for one in found]


def test_a_customers_estate_and_deployments_are_known() -> None:
    assert rules.series_of_nobody("samples", {("cust_1", ""), ("cust_1", "dep_1")}, KNOWN) == []


def test_rows_of_an_unknown_customer_or_deployment_dangle() -> None:
    found = rules.series_of_nobody("samples", {("cust_2", ""), ("cust_2", "dep_1"), ("cust_1", "dep_2")}, KNOWN)
    assert [(one.id, one.refers_to) for one in found] == [
        ("cust_1/dep_2", "deployment dep_2"),
        ("cust_2/", "customer cust_2"),
        ("cust_2/dep_1", "customer cust_2"),
    ]


def test_a_point_needs_its_outcome_with_the_same_customer() -> None:
    points = {"p1": ("cust_1", "opt_done"), "p2": ("cust_2", "opt_done"), "p3": ("cust_1", "opt_gone"), "p4": ("", "")}
    assert ids(rules.points_of_nothing(points, KNOWN)) == ["p2", "p3", "p4"]


def test_an_outcome_needs_its_point_once_its_optimization_is_over() -> None:
    assert ids(rules.outcomes_without_point({}, KNOWN)) == ["opt_done"], "the other is still being remembered"
    assert rules.outcomes_without_point({"p1": ("cust_1", "opt_done")}, KNOWN) == []


def test_presence_needs_an_agent_that_may_have_a_key() -> None:
    assert ids(rules.presence_of_nobody({"agent_1", "agent_2"}, KNOWN)) == ["agent_2"]


@pytest.mark.parametrize("step", ["opt_busy:targets", "opt_done:targets", "opt_back:restored", "opt_odd:targets"])
def test_what_an_optimization_made_and_kept_does_not_dangle(step: str) -> None:
    assert rules.left_in_cloud(made_for(step), KNOWN) == []


def test_what_going_back_should_have_taken_away_dangles() -> None:
    (found,) = rules.left_in_cloud(made_for("opt_back:targets"), KNOWN)
    assert (found.store, found.kind, found.id) == ("cloud", "step_instances", "i-1")
    assert found.refers_to == "optimization opt_back, which is rolled_back"


def test_what_was_made_for_no_optimization_dangles_while_it_lives() -> None:
    assert ids(rules.left_in_cloud(made_for("opt_gone:targets"), KNOWN)) == ["i-1"]
    assert ids(rules.left_in_cloud(made_for("opt_gone:targets", state="stopped"), KNOWN)) == ["i-1"]
    assert rules.left_in_cloud(made_for("opt_gone:targets", state="terminated"), KNOWN) == []


def test_what_a_former_customer_left_with_is_theirs() -> None:
    assert rules.left_in_cloud(made_for("opt_gone:targets", customer="cust_former"), KNOWN) == []


def test_open_orders_dangle_as_instances_do() -> None:
    orders = {"sir-1": {STEP_TAG: "opt_back:targets"}, "sir-2": {STEP_TAG: "opt_busy:targets"}}
    (found,) = rules.left_in_cloud(CloudView(HERE, [instance("i-own")], orders), KNOWN)
    assert (found.kind, found.id) == ("step_orders", "sir-1")


@pytest.mark.parametrize("state", ["running", "stopped", "terminated"])
def test_what_a_cloud_still_shows_is_stale_at_most(state: Any) -> None:
    running = [RunningInstance("i-1", "acct_1", NOW)]
    assert rules.vanished(running, [CloudView(HERE, [instance("i-1", state)], {})], NOW) == []


def test_what_a_cloud_has_forgotten_dangles_if_it_was_seen_lately() -> None:
    running = [
        RunningInstance("i-lately", "acct_1", NOW - timedelta(minutes=10)),
        RunningInstance("i-long-ago", "acct_1", NOW - timedelta(minutes=70)),
        RunningInstance("i-unseen", "acct_2", NOW),  # its account could not be asked
    ]
    assert ids(rules.vanished(running, [CloudView(HERE, [], {})], NOW)) == ["i-lately"]


def replica(name: str, instance_id: str, **changes: str) -> PlacedReplica:
    where = {"deployment_id": "dep_1", "customer_id": "cust_1", "provider": "aws", "region": "us-east-1"} | changes
    return PlacedReplica(name, instance_id, **where)


def test_a_replica_needs_an_instance_of_its_customers_accounts_there() -> None:
    view = CloudView(HERE, [instance("i-1"), instance("i-2", "terminated")], {})
    replicas = [replica("rep_1", "i-1"), replica("rep_2", "i-2"), replica("rep_3", "i-3")]
    assert ids(rules.unplaced(replicas, [view], [HERE])) == ["dep_1/rep_3"]


def test_nothing_is_said_of_replicas_where_no_account_was_seen() -> None:
    replicas = [replica("rep_1", "i-3"), replica("rep_2", "i-4", region="eu-west-1")]
    second = Account("acct_2", "cust_1", "aws", "us-east-1")
    view = CloudView(HERE, [], {})
    assert ids(rules.unplaced(replicas, [view], [HERE])) == ["dep_1/rep_1"]
    assert rules.unplaced(replicas, [view], [HERE, second]) == [], "the second account may have it"


def dangling(name: str, kind: str = "events", why: str = "optimization opt_1") -> Dangling:
    return Dangling(store="postgresql", kind=kind, id=name, refers_to=why)


def test_only_what_dangles_at_both_looks_counts() -> None:
    first, second = [dangling("half made"), dangling("lost")], [dangling("lost"), dangling("half gone")]
    assert ids(rules.confirmed(first, second)) == ["lost"]


def test_what_cannot_be_asked_counts_by_the_last_look() -> None:
    away = [dangling("known", rules.UNREACHABLE, "refused, request 1")]
    still = [dangling("known", rules.UNREACHABLE, "refused, request 2")]
    assert rules.confirmed(away, still) == still
    assert rules.confirmed([dangling("lost")], still) == still
    assert rules.confirmed(away, []) == []
