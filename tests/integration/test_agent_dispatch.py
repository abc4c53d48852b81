"""Dispatch of tasks: load is shared, failures are retried elsewhere, and invalid answers are rejected."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fixtures import estates
from optiinfra.api.recommendations import Analysis
from testbed.waiting import stretched, wait_until
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned, without_estate
from tests.helpers.invalid_answers import invalid_analyses, shutdown_of_idle_instance
from tests.helpers.private_platform import PrivatePlatform
from tests.helpers.scripted_agent import (
    NewAgent,
    Reply,
    Script,
    ScriptedAgent,
    approves,
    found_nothing,
    platform_for_scripted_agents,
    recommends,
    scripted_agents,
)

pytestmark = pytest.mark.integration

TASK_SECONDS = stretched(8.0)
BUSY = 0.9
OVERLOADED = 100.0
"""A load above that of any agent with tasks: the other one is always asked first."""


@pytest.fixture(scope="module")
def platform(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    # Agents stay healthy without heartbeats, so that only those of the test change their load.
    settings = {"HEARTBEAT_SECONDS": "60", "AGENT_TASK_SECONDS": f"{TASK_SECONDS:g}"}
    with platform_for_scripted_agents(environment, "dispatch", **settings) as platform:
        yield platform


@pytest.fixture
def new_agent(platform: PrivatePlatform) -> Iterator[NewAgent]:
    with scripted_agents(platform) as new_agent:
        yield new_agent


@pytest.fixture
def customer(platform: PrivatePlatform) -> Iterator[Customer]:
    with without_estate(platform.document) as customer:
        yield customer


def completed(customer: Customer, analysis_id: str) -> Analysis:
    """The analysis, after it has completed."""
    analysis = customer.wait_for_analysis(analysis_id)
    assert analysis.status == "completed", analysis.error
    return analysis


def analyze(customer: Customer) -> str:
    """Have an agent analyze; returns the summary, which tells who did."""
    return completed(customer, customer.start_analysis("cost")).summary or ""


@pytest.mark.slow
def test_load_is_shared_between_two_instances_of_an_agent(customer: Customer, new_agent: NewAgent) -> None:
    first, second = new_agent("cost", found_nothing("first")), new_agent("cost", found_nothing("second"))
    _check_less_loaded_is_asked(customer, first, second)

    for each in (first, second):
        each.heartbeat()
    assert _tasks_at_once(customer, first, second, 8) == (4, 4)
    assert _tasks_at_once(customer, first, second, 6) == (3, 3)  # the tasks of before have ended

    # Load that was reported counts as much as tasks that were sent since.
    first.heartbeat(current_tasks=4, load=0.5)
    assert _tasks_at_once(customer, first, second, 4) == (0, 4)
    first.heartbeat()
    _check_ended_tasks_make_room(customer, first, second)


def _check_less_loaded_is_asked(customer: Customer, first: ScriptedAgent, second: ScriptedAgent) -> None:
    loads = [
        ({"load": 0.6}, {"load": 0.2}, "second"),
        ({"load": 0.2}, {"load": 0.6}, "first"),
        ({"load": 0.5, "current_tasks": 3}, {"load": 0.5, "current_tasks": 2}, "second"),
        ({"load": 0.5, "current_tasks": 2}, {"load": 0.5, "current_tasks": 3}, "first"),
        ({"load": 0.2, "current_tasks": 9}, {"load": 0.3, "current_tasks": 0}, "first"),
    ]
    for of_first, of_second, expected in loads:
        first.heartbeat(**of_first)
        second.heartbeat(**of_second)
        assert analyze(customer) == expected, (of_first, of_second)


def _tasks_at_once(customer: Customer, first: ScriptedAgent, second: ScriptedAgent, count: int) -> tuple[int, int]:
    """How many of so many concurrent tasks each agent is given."""
    with first.holding(), second.holding():
        started = [customer.start_analysis("cost") for _ in range(count)]
        found = _wait_in_progress(first, second, count)
    for analysis_id in started:
        completed(customer, analysis_id)
    return found


def _wait_in_progress(first: ScriptedAgent, second: ScriptedAgent, count: int) -> tuple[int, int]:
    return wait_until(
        lambda: (first.in_progress, second.in_progress),
        f"{count} tasks in progress",
        15,
        accept=lambda found: sum(found) == count,
        poll=0.02,
    )


def _check_ended_tasks_make_room(customer: Customer, first: ScriptedAgent, second: ScriptedAgent) -> None:
    """The next tasks go to the agent whose tasks have ended, whether well or not."""
    held = []
    with first.holding():
        with second.holding():
            held += [customer.start_analysis("cost") for _ in range(4)]
            assert _wait_in_progress(first, second, 4) == (2, 2)
            second.script = lambda _task: Reply(500)  # these two tasks go to the first one then
        wait_until(lambda: (first.in_progress, second.in_progress) == (4, 0), "all tasks at the first agent", 15)
        second.script = found_nothing("second")
        assert [analyze(customer), analyze(customer)] == ["second", "second"]
        with second.holding():
            held += [customer.start_analysis("cost") for _ in range(4)]
            assert _wait_in_progress(first, second, 8) == (4, 4)
    for analysis_id in held:
        completed(customer, analysis_id)


@pytest.mark.slow
def test_task_of_a_killed_agent_is_finished_once_by_the_other(customer: Customer, new_agent: NewAgent) -> None:
    killed, other = new_agent("cost", recommends("by the killed")), new_agent("cost", recommends("by the other"))
    validators = [
        new_agent("performance", approves("performance", "by the killed")),
        new_agent("performance", approves("performance", "by the other")),
        new_agent("application", approves("application", "by the only one")),
    ]
    other.heartbeat(load=BUSY)
    validators[1].heartbeat(load=BUSY)

    with killed.holding(), validators[0].holding():
        analysis_id = customer.start_analysis("cost")
        killed.wait_for_tasks(1)
        killed.kill()
        wait_until(
            lambda: validators[0].tasks or customer.get(f"/analyses/{analysis_id}")["status"] != "started",
            "the validation, or the end of the analysis",
            30,
        )
        assert len(validators[0].tasks) == 1, "the recommendation was not validated"
        validators[0].kill()
        analysis = completed(customer, analysis_id)

    assert [task["task_id"] for task in other.tasks] == [task["task_id"] for task in killed.tasks]
    assert [len(each.tasks) for each in validators] == [1, 1, 1]
    assert validators[0].tasks == validators[1].tasks
    _check_one_recommendation(customer, analysis)

    _check_unhealthy_events(customer, [(killed, "analyze"), (validators[0], "validate")])

    # It still counts as healthy for a while, and nothing listens at its address.
    assert completed(customer, customer.start_analysis("cost")).summary == "by the other"
    assert (len(killed.tasks), len(other.tasks)) == (1, 2)
    _check_late_answer_is_dropped(customer, new_agent, other)


def _check_unhealthy_events(customer: Customer, died: list[tuple[ScriptedAgent, str]]) -> None:
    """The customer is told which agents died during their tasks, and not where these were."""
    events = customer.get(f"/customers/{customer.id}/events", limit=100)
    told = [event for event in events if event["event_type"] == "agent_unhealthy"]
    assert [(event["source"], event["agent_type"], event["payload"]) for event in told] == [
        (
            "orchestrator",
            agent.body["agent_type"],
            {"agent_id": agent.agent_id, "task_id": agent.tasks[0]["task_id"], "task": kind},
        )
        for agent, kind in died
    ]


def _check_one_recommendation(customer: Customer, analysis: Analysis) -> None:
    (recommendation,) = customer.get(f"/customers/{customer.id}/recommendations")
    assert analysis.recommendation_ids == [recommendation["id"]]
    assert (analysis.summary, recommendation["title"]) == ("by the other", "by the other")
    validations = [(each["agent_type"], each["reason"]) for each in recommendation["validations"]]
    assert validations == [("performance", "by the other"), ("application", "by the only one")]
    events = [event["event_type"] for event in customer.get(f"/customers/{customer.id}/events", limit=100)]
    once = ("analysis_started", "recommendation_created", "analysis_completed")
    assert {kind: events.count(kind) for kind in once} == dict.fromkeys(once, 1)
    assert events.count("recommendation_validated") == 2


def _check_late_answer_is_dropped(customer: Customer, new_agent: NewAgent, other: ScriptedAgent) -> None:
    """An agent that exceeds the deadline of a task is replaced, and what it answers later is not used."""
    stuck = new_agent("cost", recommends("by the stuck"))
    before = customer.get(f"/customers/{customer.id}/recommendations")
    with stuck.holding(at_most=2 * TASK_SECONDS):
        analysis = completed(customer, customer.start_analysis("cost"))
    assert [task["task_id"] for task in stuck.tasks] == [other.tasks[-1]["task_id"]]
    wait_until(lambda: stuck.in_progress == 0, "the late answer", 15)
    after = customer.get(f"/customers/{customer.id}/recommendations")
    assert len(after) == len(before) + 1
    assert [each["title"] for each in after if each["id"] in analysis.recommendation_ids] == ["by the other"]


@pytest.mark.slow
def test_invalid_answer_is_rejected_and_the_task_retried_elsewhere(
    platform: PrivatePlatform, customer: Customer, new_agent: NewAgent
) -> None:
    estate = estates.load(ESTATES / "startup.yaml")
    with provisioned(platform.document, estate.model_copy(update={"deployments": estate.deployments[:1]})) as owner:
        change, cases = shutdown_of_idle_instance(owner), invalid_analyses(owner)
        queue = iter(cases.values())
        invalid = new_agent("cost", lambda _task: next(queue))
        valid = new_agent("cost", recommends("valid", **change))
        approving = [
            new_agent("performance", approves("performance")),
            new_agent("application", approves("application")),
        ]
        valid.heartbeat(load=OVERLOADED)

        analyses = [completed(owner, owner.start_analysis("cost")) for _ in cases]

        asked = {task["task_id"]: case for task, case in zip(invalid.tasks, cases, strict=True)}
        retried = [task["task_id"] for task in valid.tasks]
        assert [case for task_id, case in asked.items() if task_id not in retried] == [], "these were accepted"
        assert retried == list(asked)
        assert [analysis.summary for analysis in analyses] == ["valid"] * len(cases)
        shown = owner.get(f"/customers/{owner.id}/recommendations", limit=1000)
        assert [{"title": each["title"], "affected": each["affected_resources"]} for each in shown] == [
            {"title": "valid", "affected": change["affected_resources"]}
        ] * len(cases)
        assert {each["id"] for each in shown} == {one for each in analyses for one in each.recommendation_ids}
        assert [len(each.tasks) for each in approving] == [len(cases)] * 2

        _check_answers_of_another_customer(customer, owner, invalid, valid)
    _check_analysis_without_a_valid_answer(customer, invalid, valid)
    _check_invalid_validations(customer, new_agent, invalid, approving[0])


def _check_answers_of_another_customer(
    customer: Customer, owner: Customer, invalid: ScriptedAgent, valid: ScriptedAgent
) -> None:
    """What another customer owns is as unknown as what nobody owns."""
    estate = owner.infrastructure()
    valid.script = found_nothing("valid")
    foreign: list[dict[str, Any]] = [
        {"deployment_id": estate.vllm_deployments[0].deployment_id},
        {"affected_resources": [estate.vllm_deployments[0].deployment_id]},
        {"affected_resources": [estate.instances[0].instance_id]},
    ]
    for changes in foreign:
        invalid.script = recommends("foreign", **changes)
        assert analyze(customer) == "valid", changes
    assert customer.get(f"/customers/{customer.id}/recommendations") == []


def _check_analysis_without_a_valid_answer(customer: Customer, *agents: ScriptedAgent) -> None:
    """The analysis fails, names every agent that was asked, and stores nothing."""
    for each in agents:
        each.script = recommends("invalid", confidence=2.0)
    analysis = customer.wait_for_analysis(customer.start_analysis("cost"))
    assert (analysis.status, analysis.recommendation_ids, analysis.summary) == ("failed", [], None)
    assert [each.agent_id in (analysis.error or "") for each in agents] == [True, True]
    assert "confidence" in (analysis.error or "")
    assert customer.environment["host_address"] not in (analysis.error or "")


def _check_invalid_validations(
    customer: Customer, new_agent: NewAgent, analyst: ScriptedAgent, invalid: ScriptedAgent
) -> None:
    """A validation is another agent's if it is signed by another type, or has impossible figures."""
    analyst.script = recommends("advice")
    valid = new_agent("performance", approves("performance", "valid"))
    valid.heartbeat(load=OVERLOADED)
    approval = approves("performance", "invalid")({})
    assert isinstance(approval, dict)
    wrong: list[Mapping[str, Any] | Reply] = [
        approval | {"agent_type": "application"},
        approval | {"approved": "perhaps"},
        approval | {"baseline_quality": 1.01},
        approval | {"reason": "null \0 character"},
        Reply(body=b"true"),
    ]
    for answer in wrong:
        invalid.script = _always(answer)
        (recommendation,) = customer.analyze("cost").values()
        assert [(each.agent_type, each.reason) for each in recommendation.validations] == [
            ("performance", "valid"),
            ("application", "nothing against it"),
        ], answer
    assert len(valid.tasks) == len(wrong)


def _always(answer: Mapping[str, Any] | Reply) -> Script:
    return lambda _task: answer
