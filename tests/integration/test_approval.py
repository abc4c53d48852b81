"""Approval and rejection: by whom, of what, what follows, and what happens without being asked."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest

from fixtures import aws, estates
from optiinfra.api.common import now
from testbed.waiting import stretched, wait_until
from tests.helpers import cloud_state
from tests.helpers.accounts import Account, add_user, owner_of, signed_up
from tests.helpers.approvals import ENDED, REASON, Approvals
from tests.helpers.callers import Caller, bearer, problem
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer
from tests.helpers.idle_shutdown import IDLE_TYPE, MONTHLY_COST, SHUTDOWN
from tests.helpers.runtime import PlayedRuntime, connected_runtime, customer_without_fleet, deployment
from tests.helpers.seeds import Seeds, seeded

pytestmark = [pytest.mark.integration, pytest.mark.slow]

UNKNOWN = "rec_000000000000000000000000"
SAVINGS = round(MONTHLY_COST, 2)
"""What the shutdown of the idle instance saves, in dollars a month."""
NO_SUCH_RECOMMENDATION = (404, "not_found", "no such recommendation")
GRACE = timedelta(seconds=2)
"""How long an instance must have been idle in the test environment before its shutdown is recommended."""


def test_approval_follows_role_state_and_preferences(
    environment: dict[str, Any], callers: dict[str, Caller], new_customer: NewCustomer
) -> None:
    with customer_without_fleet(environment) as customer, seeded(environment, customer.id) as seeds:
        users = {"owner": owner_of(environment, customer)}
        users |= {role: add_user(environment, customer.id, role) for role in ("approver", "viewer")}
        by_role = {
            role: Approvals(customer.http, customer.id, user, user.sign_in(customer.http)["access_token"])
            for role, user in users.items()
        }
        check_who_may_not(by_role, callers, seeds)
        check_who_may(environment, by_role, seeds)
        check_what_may_not(by_role["owner"], seeds)
        with connected_runtime(customer) as runtime:
            check_other_changes_are_respected(by_role["owner"], runtime, seeds)
            check_one_change_from_approval_to_completion(by_role["owner"], customer, runtime, seeds)
    check_analyses(environment, new_customer)


def check_who_may_not(by_role: dict[str, Approvals], callers: dict[str, Caller], seeds: Seeds) -> None:
    """Viewers and everyone but users are refused, other customers' users are told that there is no such thing."""
    recommendation, owner = seeds.recommendation("i-1"), by_role["owner"]
    nobody = Account("", "", "")
    refused = {
        kind: Approvals(owner.http, owner.customer_id, nobody, callers[kind].token or "")
        for kind in ("runtime", "agent", "enrolment", "admin")
    } | {"viewer": by_role["viewer"]}
    for kind, caller in refused.items():
        for answer in (caller.approve(recommendation), caller.reject(recommendation)):
            assert problem(answer)[:2] == (403, "forbidden"), kind
    stranger = Approvals(owner.http, owner.customer_id, nobody, callers["user"].token or "")
    for decide in (stranger.approve, stranger.reject):
        assert problem(decide(recommendation)) == problem(decide(UNKNOWN)) == NO_SUCH_RECOMMENDATION
    anonymous = owner.http.post(f"/recommendations/{recommendation}/approve", headers={"authorization": ""})
    assert problem(anonymous)[:2] == (401, "unauthenticated")
    assert owner.statuses() == {recommendation: "pending"}
    assert owner.optimizations() == {}
    assert owner.events() == []


def check_who_may(environment: dict[str, Any], by_role: dict[str, Approvals], seeds: Seeds) -> None:
    """Owners and approvers approve and reject, in the API and in the portal; the event says who and why."""
    with httpx.Client(base_url=environment["urls"]["portal"], timeout=stretched(15)) as portal:
        for role in ("owner", "approver"):
            user, resources = by_role[role], f"i-{role}"
            approved, rejected = seeds.recommendation(resources), seeds.recommendation(resources)
            before = len(user.events())
            answer = user.reject(rejected)
            assert answer.status_code == 200, answer.text
            assert (answer.json()["id"], answer.json()["status"]) == (rejected, "rejected")
            answer = user.approve(approved)
            optimization_id = answer.json()["optimization_id"]
            assert (answer.status_code, answer.json()) == (
                200,
                {"status": "approved", "optimization_id": optimization_id},
            )
            user.wait_for_end(approved)
            assert user.approve(approved).json() == answer.json(), "approving twice is approving once"
            assert user.optimizations()[approved]["id"] == optimization_id
            decided = [one for one in user.events()[before:] if one["source"] == "customer"]
            assert [(one["event_type"], one["payload"]) for one in decided] == [
                (
                    "recommendation_rejected",
                    {"recommendation_id": rejected, "reason": REASON, "rejected_by": user.user.user_id},
                ),
                ("recommendation_approved", {"recommendation_id": approved, "approved_by": user.user.user_id}),
            ]
            form = portal.post(f"/recommendations/{approved}/approve", headers=bearer(user.token))
            assert (form.status_code, form.headers["location"]) == (303, f"/optimizations/{optimization_id}")
            for reason in ("", " ", "x" * 201):
                assert user.reject(seeds.recommendation(resources), reason).status_code == 422
        form = portal.post(f"/recommendations/{approved}/approve", headers=bearer(by_role["viewer"].token))
        assert form.status_code == 403


def check_what_may_not(owner: Approvals, seeds: Seeds) -> None:
    """What is refused, undecided, out of date or only advice cannot be approved; what is not pending not rejected."""
    refusals = {
        seeds.recommendation("i-2", verdicts={"performance": False, "application": True}, status="rejected"): (
            "refused_by_validator",
            "the performance agent refused it: seeded",
        ),
        seeds.recommendation("i-2", verdicts={"performance": True, "application": False}): (
            "refused_by_validator",
            "the application agent refused it: seeded",
        ),
        seeds.recommendation("i-2", type="commitment"): ("not_executable", "this is advice"),
        seeds.recommendation("i-2", type="region_advice"): ("not_executable", "this is advice"),
    }
    for decided, missing in (("performance", "application"), ("application", "performance")):
        undecided = seeds.recommendation("i-2", verdicts={decided: True})
        refusals[undecided] = ("not_validated", f"not yet validated by: {missing}")
    refusals[seeds.recommendation("i-2", verdicts={})] = ("not_validated", "by: performance, application")
    outdated = {seeds.recommendation("i-2", expires_in=-1.0): "expired"}
    outdated |= {seeds.recommendation("i-2", status=one): one for one in ("rejected", "superseded", "failed")}
    for recommendation, status in outdated.items():
        refusals[recommendation] = ("not_pending", f"{recommendation} is {status}, not pending")
    before = owner.statuses()
    for recommendation, (kind, detail) in refusals.items():
        answer = problem(owner.approve(recommendation))
        assert answer[:2] == (409, kind)
        assert detail in answer[2]
    assert owner.statuses() == before
    assert owner.optimizations().keys().isdisjoint(refusals)
    for recommendation in outdated:
        assert problem(owner.reject(recommendation))[:2] == (409, "not_pending")
    pending = seeds.recommendation("i-2")
    assert owner.reject(pending).status_code == 200
    for decide in (owner.reject, owner.approve):
        assert problem(decide(pending))[:2] == (409, "not_pending")
    # The agent that proposes a change does not validate it.
    for agent, other in (("performance", "application"), ("application", "performance")):
        own = seeds.recommendation("i-2", agent=agent, verdicts={other: True})
        assert owner.approve(own).status_code == 200
        owner.wait_for_end(own)


def check_other_changes_are_respected(owner: Approvals, runtime: PlayedRuntime, seeds: Seeds) -> None:
    """Nothing is approved beside a change of the same deployment or of one same resource, even if that only waits."""
    chat = runtime.report(deployment("chat", ["i-3"], "g5.xlarge"))["chat"]
    for number, status in enumerate(("pending", "running", "rolling_back", *ENDED)):
        shared, own = f"i-shared-{number}", f"i-own-{number}"
        of_chat = chat if number == 0 else None
        first = seeds.recommendation(shared, "i-first", status="approved", deployment_id=of_chat)
        optimization_id = seeds.optimization(first, status)
        same_resource = seeds.recommendation(own, shared)
        unrelated = seeds.recommendation(f"i-unrelated-{number}")
        if status in ENDED:
            assert owner.approve(same_resource).status_code == 200
        else:
            busy = f"optimization {optimization_id} is still changing"
            assert problem(owner.approve(same_resource)) == (409, "deployment_busy", f"{busy} these resources")
            if of_chat is not None:
                same_deployment = owner.approve(seeds.recommendation("i-elsewhere", deployment_id=chat))
                assert problem(same_deployment) == (409, "deployment_busy", f"{busy} this deployment")
            assert owner.statuses()[same_resource] == "pending"
            assert same_resource not in owner.optimizations()
        assert owner.approve(unrelated).status_code == 200
        owner.wait_for_end(unrelated)
    runtime.report()


def check_one_change_from_approval_to_completion(
    owner: Approvals, customer: Customer, runtime: PlayedRuntime, seeds: Seeds
) -> None:
    """Of several changes of one instance, approved at the same time, one begins; its states follow each other."""
    (cloud,) = customer.seeded.clouds
    (instance,) = aws.start_instances(cloud_state.ec2(cloud), IDLE_TYPE, 1, "on-demand", {"Name": "idle"})
    customer.onboard()
    rivals = [seeds.recommendation(instance, savings=MONTHLY_COST) for _ in range(3)]
    try:
        chosen = check_rivals(owner, rivals)
    finally:  # its first step waits for the runtime, which has not worked so far
        with runtime.working():
            owner.wait_until_idle(rivals)
    ended = owner.optimizations()[chosen]
    assert (ended["status"], ended["result"]["success"]) == ("completed", True)
    assert ended["result"]["actual_savings"] == pytest.approx(MONTHLY_COST, abs=0.01)
    assert cloud_state.running_in(cloud) == {}
    losers = [one for one in rivals if one != chosen]
    assert {one: owner.statuses()[one] for one in rivals} == {**dict.fromkeys(losers, "pending"), chosen: "completed"}
    check_events(owner, ended["id"])
    # Its instance has gone, so the next change cannot be made.
    assert owner.approve(losers[0]).status_code == 200
    with runtime.working():
        assert owner.wait_for_end(losers[0])["status"] == "rolled_back"
    assert owner.statuses()[losers[0]] == "rolled_back"


def check_rivals(owner: Approvals, rivals: list[str]) -> str:
    """One of several recommendations for one instance is approved, the others are not while it runs. Returns it."""
    with ThreadPoolExecutor(2 * len(rivals)) as threads:
        answers = [(one, threads.submit(owner.approve, one)) for one in rivals * 2]
    approved = [(one, answer.result().json()) for one, answer in answers if answer.result().status_code == 200]
    ((chosen, optimization_id),) = {(one, body["optimization_id"]) for one, body in approved}
    assert len(approved) == 2
    for one, answer in answers:
        assert one == chosen or problem(answer.result())[:2] == (409, "deployment_busy")
    begun = wait_until(
        lambda: owner.optimizations()[chosen],
        "the first step",
        30,
        accept=lambda optimization: bool(optimization["execution_steps"]),
    )
    assert (begun["id"], begun["status"], begun["completed_at"]) == (optimization_id, "running", None)
    assert owner.statuses()[chosen] == "executing"
    for loser in set(rivals) - {chosen}:
        assert problem(owner.approve(loser))[:2] == (409, "deployment_busy")
    assert owner.approve(chosen).json()["optimization_id"] == optimization_id
    assert problem(owner.reject(chosen))[:2] == (409, "not_pending")
    return chosen


def check_events(owner: Approvals, optimization_id: str) -> None:
    """The events of a completed shutdown: each state once, in order, with the share of steps that were completed."""
    own = [one for one in owner.events() if one["optimization_id"] == optimization_id]
    steps = [
        (kind, step, status, (number + done) / len(SHUTDOWN))
        for number, step in enumerate(SHUTDOWN)
        for kind, status, done in (("step_started", "running", 0), ("step_completed", "completed", 1))
    ]
    expected = [
        ("recommendation_approved", None, None, None),
        ("optimization_started", None, "running", 0.0),
        *steps,
        ("outcome_stored", None, None, None),
        ("optimization_completed", None, "completed", 1.0),
    ]
    assert [(one["event_type"], one["step"], one["status"], one["progress"]) for one in own] == expected


def check_analyses(environment: dict[str, Any], new_customer: NewCustomer) -> None:
    """What an analysis supersedes, and what it approves by itself."""
    startup = estates.load(ESTATES / "startup.yaml")
    customer = new_customer(startup.model_copy(update={"deployments": startup.deployments[:1]}))
    with signed_up(environment) as stranger, seeded(environment, stranger.customer_id) as foreign:
        with seeded(environment, customer.id) as seeds:
            first = check_superseded(customer, seeds, foreign)
        check_automatic_approval(customer, first)


def check_superseded(customer: Customer, seeds: Seeds, foreign: Seeds) -> dict[str, str]:
    """An analysis replaces what is pending for the same change, or about what has gone. Returns its recommendations."""
    known = customer.infrastructure()
    (chat,) = known.vllm_deployments
    serving = chat.engines[0].instance_id
    idle = idle_for_long_enough(customer)
    spot: dict[str, Any] = {"type": "spot_migration", "deployment_id": chat.deployment_id}
    superseded = [
        seeds.recommendation(idle),
        seeds.recommendation(serving, idle, verdicts={}),
        seeds.recommendation(chat.deployment_id, serving, **spot),
        seeds.recommendation("i-gone"),
        seeds.recommendation(idle, "i-gone", type="engine_tuning"),
    ]
    left_alone = {
        seeds.recommendation(idle, type="engine_tuning"): "pending",
        seeds.recommendation(serving): "pending",
        seeds.recommendation(serving, type="engine_tuning", deployment_id=chat.deployment_id): "pending",
    }
    for status in ("approved", "rejected", "executing", *ENDED):
        left_alone[seeds.recommendation(idle, "i-gone", status=status)] = status
        left_alone[seeds.recommendation(chat.deployment_id, serving, status=status, **spot)] = status
    other = foreign.recommendation(idle)
    set_preferences(customer, {"auto_approve_below": SAVINGS})  # not below that
    found = customer.analyze("cost")
    made = {name: one.id for name, one in found.items()}
    assert made.keys() == {"chat", "idle_shutdown"}
    after = statuses(customer)
    assert [after[one] for one in superseded] == ["superseded"] * len(superseded)
    assert {one: after[one] for one in left_alone} == left_alone
    assert foreign.status(other) == "pending"
    assert (found["chat"].risk_level, after[made["chat"]]) == ("medium", "pending")
    assert (found["idle_shutdown"].risk_level, after[made["idle_shutdown"]]) == ("low", "pending")
    assert found["idle_shutdown"].estimated_savings == SAVINGS
    return made


def check_automatic_approval(customer: Customer, earlier: dict[str, str]) -> None:
    """Approved without being asked is what is of low risk and saves less than the limit, unless paused."""
    set_preferences(customer, {"auto_approve_below": SAVINGS + 0.01, "paused": True})
    made = {name: one.id for name, one in customer.analyze("cost").items()}
    after = statuses(customer)
    assert {after[one] for one in earlier.values()} == {"superseded"}
    assert (after[made["chat"]], after[made["idle_shutdown"]]) == ("pending", "pending")
    assert customer.get(f"/customers/{customer.id}/optimizations") == []

    set_preferences(customer, {"paused": False})
    found = customer.analyze("cost")
    assert found["chat"].estimated_savings < SAVINGS, "only its risk may keep it from being approved"
    assert statuses(customer)[found["chat"].id] == "pending"
    (started,) = customer.get(f"/customers/{customer.id}/optimizations")
    assert started["recommendation_id"] == found["idle_shutdown"].id
    assert statuses(customer)[found["idle_shutdown"].id] in ("approved", "executing", "completed")
    events = customer.get(f"/customers/{customer.id}/events", limit=1000)
    (approval,) = (one["payload"] for one in events if one["event_type"] == "recommendation_approved")
    assert approval == {"recommendation_id": found["idle_shutdown"].id, "approved_by": "preferences"}
    assert customer.wait_for_optimization(started["id"]).status == "completed"
    assert statuses(customer)[found["idle_shutdown"].id] == "completed"


def idle_for_long_enough(customer: Customer) -> str:
    """The idle instance, once it has been idle for so long that the cost agent recommends its shutdown."""
    idle = wait_until(
        lambda: next(one for one in customer.infrastructure().instances if one.instance_type == IDLE_TYPE),
        "the instance to be idle for long enough",
        30,
        accept=lambda one: one.idle_since is not None and now() - one.idle_since > GRACE,
    )
    return idle.instance_id


def set_preferences(customer: Customer, changes: dict[str, Any]) -> None:
    """Change some of the customer's preferences."""
    answer = customer.http.patch(f"/customers/{customer.id}/preferences", json=changes)
    assert answer.status_code == 200, answer.text
    assert answer.json().items() >= changes.items()


def statuses(customer: Customer) -> dict[str, str]:
    """The status of each of the customer's recommendations."""
    return {one["id"]: one["status"] for one in customer.get(f"/customers/{customer.id}/recommendations", limit=1000)}
