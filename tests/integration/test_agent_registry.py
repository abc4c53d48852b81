"""The registry of agents: who may register, what a heartbeat changes, and who is given tasks."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest

from optiinfra.api.common import now
from optiinfra.kit.task_requests import TaskSigner
from testbed.waiting import stretched, wait_until
from tests.helpers.callers import Caller, all_callers, bearer, problem, unused_address
from tests.helpers.customer import Customer
from tests.helpers.customers import without_estate
from tests.helpers.private_platform import PrivatePlatform
from tests.helpers.scripted_agent import (
    NewAgent,
    ScriptedAgent,
    approves,
    found_nothing,
    platform_for_scripted_agents,
    recommends,
    scripted_agents,
)
from tests.helpers.stores import Stores

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # with the platform that the module starts

HEARTBEAT_SECONDS = stretched(0.75)
UNHEALTHY_SECONDS = 3 * HEARTBEAT_SECONDS
"""How long after its last heartbeat an agent is unhealthy."""
CLOCK_SECONDS = 0.1
"""By how much two processes may differ in what they measure."""


@pytest.fixture(scope="module")
def platform(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    with platform_for_scripted_agents(environment, "registry", HEARTBEAT_SECONDS=f"{HEARTBEAT_SECONDS:g}") as platform:
        yield platform


@pytest.fixture
def new_agent(platform: PrivatePlatform) -> Iterator[NewAgent]:
    with scripted_agents(platform, HEARTBEAT_SECONDS / 3) as new_agent:
        yield new_agent


@pytest.fixture
def customer(platform: PrivatePlatform) -> Iterator[Customer]:
    with without_estate(platform.document) as customer:
        yield customer


@pytest.fixture
def stores(platform: PrivatePlatform) -> Iterator[Stores]:
    with closing(Stores(platform.document)) as stores:
        yield stores


@pytest.fixture
def callers(platform: PrivatePlatform) -> Iterator[dict[str, Caller]]:
    with all_callers(platform.document) as callers:
        yield callers


def listed(customer: Customer) -> dict[str, dict[str, Any]]:
    """The listed agents, by id."""
    return {each["agent_id"]: each for each in customer.get("/orchestrator/agents")}


def stored(stores: Stores, agent: ScriptedAgent) -> tuple[Any, ...]:
    """What PostgreSQL holds of an agent's heartbeats: tasks, load, whether it is draining, and the time."""
    columns = "current_tasks, load, draining, last_heartbeat_at"
    (row,) = stores.sql(f"SELECT {columns} FROM agents WHERE id = %s", agent.agent_id)  # noqa: S608
    return row


def analyze(customer: Customer) -> str:
    """Have an agent analyze; returns the summary, which tells who did."""
    analysis = customer.wait_for_analysis(customer.start_analysis("cost"))
    assert analysis.status == "completed", analysis.error
    return analysis.summary or ""


def test_registered_agent_is_listed_and_given_what_it_is_capable_of(
    customer: Customer, callers: dict[str, Caller], new_agent: NewAgent, stores: Stores
) -> None:
    _check_only_the_enrolment_secret_registers(customer, callers)

    began = now()
    analyst = new_agent("cost", recommends("by the analyst"), capabilities=["analyze"])
    _check_listing(customer, analyst, began)
    _check_secret_is_hashed(stores, analyst)

    others = [
        new_agent("cost", recommends("by one that cannot"), capabilities=["judge", "validate"]),
        new_agent("cost", recommends("by one of another pool"), pool="default"),
        new_agent("performance", recommends("by another type"), capabilities=["analyze", "judge"]),
    ]
    validators = [
        new_agent("performance", approves("performance", "fast enough"), capabilities=["validate"]),
        new_agent("application", approves("application", "good enough"), capabilities=["validate"]),
    ]
    analyst.heartbeat(load=0.9, current_tasks=7)  # it is the only one that can, however busy it is
    (recommendation,) = customer.analyze("cost").values()

    assert recommendation.title == "by the analyst"
    assert [(each.agent_type, each.approved, each.reason) for each in recommendation.validations] == [
        ("performance", True, "fast enough"),
        ("application", True, "good enough"),
    ]
    tasks = [each.tasks for each in (analyst, *validators)]
    assert [[task["kind"] for task in given] for given in tasks] == [["analyze"], ["validate"], ["validate"]]
    assert {task["customer_id"] for given in tasks for task in given} == {customer.id}
    assert {task["draft"]["title"] for given in tasks[1:] for task in given} == {"by the analyst"}
    assert [each.tasks for each in others] == [[], [], []]

    _check_same_address_replaces(customer, analyst, others[0])


def _check_only_the_enrolment_secret_registers(customer: Customer, callers: dict[str, Caller]) -> None:
    before = listed(customer)
    body = {"agent_type": "cost", "version": "1", "capabilities": [], "hostname": "h", "base_url": unused_address()}
    tokens = {kind: caller.token for kind, caller in callers.items() if kind != "enrolment"}
    tokens |= {"wrong": "x" * 40, "shortened": (callers["enrolment"].token or "")[:-1]}
    answers = {
        kind: customer.http.post(
            "/orchestrator/agents/register",
            json=body,
            headers={"Authorization": ""} if token is None else bearer(token),
        ).status_code
        for kind, token in tokens.items()
    }
    assert answers == {
        "anonymous": 401,
        "wrong": 401,
        "shortened": 401,
        "user": 403,
        "runtime": 403,
        "agent": 403,
        "admin": 403,
    }
    assert listed(customer).keys() == before.keys()


def _check_listing(customer: Customer, agent: ScriptedAgent, began: datetime) -> None:
    shown = listed(customer)[agent.agent_id]
    assert began <= datetime.fromisoformat(shown.pop("last_heartbeat_at")) <= now()
    idle = {"status": "active", "current_tasks": 0, "load": 0.0, "draining": False}
    hidden = {"hostname": None, "base_url": None}
    assert shown == agent.body | idle | hidden | {"agent_id": agent.agent_id}
    admin = bearer(customer.environment["credentials"]["admin_token"])
    of_admin = {each["agent_id"]: each for each in customer.http.get("/orchestrator/agents", headers=admin).json()}
    assert {name: of_admin[agent.agent_id][name] for name in hidden} == {name: agent.body[name] for name in hidden}


def _check_secret_is_hashed(stores: Stores, agent: ScriptedAgent) -> None:
    assert agent.secret.startswith("agsec_")
    ((hashed,),) = stores.sql("SELECT secret_hash FROM agents WHERE id = %s", agent.agent_id)
    assert hashed == hashlib.sha256(agent.secret.encode()).hexdigest()
    assert stores.count_mentions([agent.secret]) == {}


def _check_same_address_replaces(customer: Customer, agent: ScriptedAgent, other: ScriptedAgent) -> None:
    """An agent that registers again under its address has one entry, with a new id and a new secret."""
    before, first = listed(customer), (agent.agent_id, agent.secret)
    for secret in (None, other.secret, "agsec_" + "x" * 40):  # it is alive, and the address its own
        refused = agent.try_register(secret, version="stolen")
        assert problem(refused)[:2] == (409, "address_in_use"), secret
    kept = listed(customer)
    assert {each: kept[each]["version"] for each in kept} == {each: before[each]["version"] for each in before}
    elsewhere = problem(agent.try_register(base_url="http://169.254.169.254"))
    assert elsewhere == (422, "invalid", "body.base_url: the address is in none of the agents' networks")
    registered = agent.register(version="upgraded", hostname="moved")

    assert registered == {
        "registered": True,
        "agent_id": agent.agent_id,
        "agent_secret": agent.secret,
        "heartbeat_seconds": HEARTBEAT_SECONDS,
        "task_key": TaskSigner(customer.environment["credentials"]["task_signing_key"]).public_key,
    }
    after = listed(customer)
    assert after.keys() == (before.keys() - {first[0]}) | {agent.agent_id}
    assert after[agent.agent_id]["version"] == "upgraded"
    assert agent.try_heartbeat(token=first[1], agent_id=first[0]).status_code == 401
    assert agent.try_heartbeat().status_code == other.try_heartbeat().status_code == 200
    assert [each.title for each in customer.analyze("cost").values()] == ["by the analyst"]
    assert len(agent.given("analyze")) == 2


def test_heartbeat_is_kept_and_accepted_for_its_own_agent_only(
    customer: Customer, callers: dict[str, Caller], new_agent: NewAgent, stores: Stores
) -> None:
    agent = new_agent("cost", found_nothing("by the agent"), silent=True)
    other = new_agent("cost", found_nothing("by the other"), silent=True)
    others = stored(stores, other)

    began = now()
    answer = agent.try_heartbeat(status="active", current_tasks=3, load=0.4)
    assert (answer.status_code, answer.json()["ok"]) == (200, True)
    tasks, load, draining, at = stored(stores, agent)
    assert (tasks, load, draining) == (3, 0.4, False)
    assert began <= at <= now()
    shown = listed(customer)[agent.agent_id]
    assert (shown["status"], shown["current_tasks"], shown["load"], shown["draining"]) == ("active", 3, 0.4, False)
    assert datetime.fromisoformat(shown["last_heartbeat_at"]) == at
    _check_refused_heartbeats(callers, agent, other, stores)
    assert stored(stores, other) == others

    with agent.keep_alive(HEARTBEAT_SECONDS / 3), other.keep_alive(HEARTBEAT_SECONDS / 3):
        _check_draining_agent_gets_no_task(customer, agent, other)
    _check_heartbeat_after_deregistration(customer, agent, stores)


def _check_heartbeat_after_deregistration(customer: Customer, agent: ScriptedAgent, stores: Stores) -> None:
    ended, secret, kept = agent.agent_id, agent.secret, stored(stores, agent)
    assert agent.deregister().status_code == 204
    assert agent.try_heartbeat().status_code == 401
    assert stored(stores, agent) == kept
    assert ended not in listed(customer)
    assert not [key for key in stores.redis.scan_iter("*") if ended in key]
    agent.register()
    assert agent.try_heartbeat(token=secret).status_code == 401
    assert agent.try_heartbeat(token=secret, agent_id=ended).status_code == 401


def _check_draining_agent_gets_no_task(customer: Customer, agent: ScriptedAgent, other: ScriptedAgent) -> None:
    other.heartbeat(load=0.9)
    agent.heartbeat(status="draining")
    assert listed(customer)[agent.agent_id]["draining"] is True
    assert analyze(customer) == "by the other"
    other.heartbeat(load=0.9)
    agent.heartbeat()
    assert listed(customer)[agent.agent_id]["draining"] is False
    assert analyze(customer) == "by the agent"
    other.heartbeat()


def _check_refused_heartbeats(
    callers: dict[str, Caller], agent: ScriptedAgent, other: ScriptedAgent, stores: Stores
) -> None:
    kept = stored(stores, agent)
    changed: dict[str, Any] = {"current_tasks": 5, "load": 0.7}
    refused = {
        "another agent": agent.try_heartbeat(token=other.secret, **changed),
        "unknown agent": agent.try_heartbeat(agent_id="agent_unknown", **changed),
        "unknown secret": agent.try_heartbeat(token="agsec_" + "x" * 40, **changed),
        "enrolment": agent.try_heartbeat(token=callers["enrolment"].token, **changed),
        "admin": agent.try_heartbeat(token=callers["admin"].token, **changed),
        "user": agent.try_heartbeat(token=callers["user"].token, **changed),
        "negative tasks": agent.try_heartbeat(current_tasks=-1),
        "negative load": agent.try_heartbeat(load=-0.1),
        "no number": agent.try_heartbeat(load=float("nan")),
        "unknown status": agent.try_heartbeat(status="asleep"),
        "unknown field": agent.try_heartbeat(pool="default"),
    }
    assert {why: answer.status_code for why, answer in refused.items()} == {
        "another agent": 404,
        "unknown agent": 404,
        "unknown secret": 401,
        "enrolment": 403,
        "admin": 403,
        "user": 403,
        "negative tasks": 422,
        "negative load": 422,
        "no number": 422,
        "unknown status": 422,
        "unknown field": 422,
    }
    assert stored(stores, agent) == kept


def test_agent_without_three_heartbeats_is_unhealthy_and_not_asked_until_the_next(
    platform: PrivatePlatform, customer: Customer, new_agent: NewAgent, stores: Stores
) -> None:
    agent = new_agent("cost", found_nothing("by the agent"), silent=True)
    other = new_agent("cost", found_nothing("by the other"))
    other.heartbeat(load=0.9)
    _check_unhealthy_in_time(customer, agent)
    assert listed(customer)[other.agent_id]["status"] == "active"
    assert [analyze(customer), analyze(customer)] == ["by the other", "by the other"]

    _check_next_heartbeat_recovers(customer, agent)
    assert listed(customer)[agent.agent_id]["status"] == "active"

    # Without Redis, the heartbeats in PostgreSQL give the same answer.
    with platform.proxies["redis"].failing("refused"):
        _check_unhealthy_in_time(customer, agent)
        assert listed(customer)[other.agent_id]["status"] == "active"
        assert analyze(customer) == "by the other"
        _check_next_heartbeat_recovers(customer, agent)
    assert (len(agent.tasks), len(other.tasks)) == (2, 3)


def _check_next_heartbeat_recovers(customer: Customer, agent: ScriptedAgent) -> None:
    with agent.keep_alive(HEARTBEAT_SECONDS / 3):
        agent.heartbeat()
        assert analyze(customer) == "by the agent"


def _check_unhealthy_in_time(customer: Customer, agent: ScriptedAgent) -> None:
    """It stays healthy for as long as stated after a heartbeat, and not longer."""
    sent = time.monotonic()
    agent.heartbeat()
    received = time.monotonic()
    asked: list[float] = []

    def status() -> str:
        asked.append(time.monotonic())
        return str(listed(customer)[agent.agent_id]["status"])

    last = wait_until(
        status,
        "it to be unhealthy",
        60,
        accept=lambda seen: seen == "unhealthy" or time.monotonic() - received > 2 * UNHEALTHY_SECONDS,
        poll=0.02,
    )
    assert last == "unhealthy", "it was healthy for twice as long as stated"
    unhealthy = time.monotonic()
    assert unhealthy - sent > UNHEALTHY_SECONDS - CLOCK_SECONDS, "it was unhealthy too soon"
    assert len(asked) > 1, "it was never healthy"
    last_healthy = asked[-2]
    assert last_healthy - received < UNHEALTHY_SECONDS + CLOCK_SECONDS, "it was healthy for too long"


def test_agent_deregistered_while_a_task_runs_gets_no_other_and_the_task_is_done_once(
    customer: Customer, new_agent: NewAgent
) -> None:
    leaving, staying = new_agent("cost", recommends("by the leaving")), new_agent("cost", recommends("by the staying"))
    new_agent("performance", approves("performance"))
    new_agent("application", approves("application"))
    staying.heartbeat(load=0.9)
    with leaving.holding():
        running = customer.start_analysis("cost")
        leaving.wait_for_tasks(1)
        assert leaving.deregister().status_code == 204
        assert leaving.agent_id not in listed(customer)
        assert leaving.try_heartbeat().status_code == leaving.deregister().status_code == 401
        assert [each.title for each in customer.analyze("cost").values()] == ["by the staying"]
    (done,) = customer.recommendations_of(customer.wait_for_analysis(running)).values()
    assert done.title == "by the leaving"
    assert (len(leaving.tasks), len(staying.given("analyze"))) == (1, 1)

    leaving.register()
    staying.heartbeat(load=0.9)
    with leaving.holding():
        running = customer.start_analysis("cost")
        task = leaving.wait_for_tasks(2)[1]
        leaving.deregister()
        leaving.kill()
    (done,) = customer.recommendations_of(customer.wait_for_analysis(running)).values()
    assert done.title == "by the staying"
    assert [each["task_id"] for each in staying.given("analyze")][1:] == [task["task_id"]]
    _check_each_analysis_once(customer, analyses=3)


def _check_each_analysis_once(customer: Customer, analyses: int) -> None:
    events = customer.get(f"/customers/{customer.id}/events", limit=1000)
    kinds = [event["event_type"] for event in events]
    once = ("analysis_started", "recommendation_created", "analysis_completed")
    assert {kind: kinds.count(kind) for kind in once} == dict.fromkeys(once, analyses)
    assert len(customer.get(f"/customers/{customer.id}/recommendations")) == analyses
