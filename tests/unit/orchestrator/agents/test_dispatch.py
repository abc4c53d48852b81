"""Dispatch of tasks to agents: order, failover, retry, and the error when no agent could."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from optiinfra.api.agents import Agent, AnalyzeAnswer, AnalyzeTask
from optiinfra.api.common import now
from optiinfra.api.customers import Infrastructure, Preferences
from optiinfra.api.problems import STARTING, STORE_UNAVAILABLE
from optiinfra.orchestrator.agents import dispatch
from optiinfra.orchestrator.agents.dispatch import AgentError, dispatch_task
from optiinfra.orchestrator.platform import Platform

pytestmark = pytest.mark.anyio

TASK = AnalyzeTask(
    task_id="task_1",
    customer_id="cust_1",
    preferences=Preferences(),
    infrastructure=Infrastructure(status="discovered", instances=[], vllm_deployments=[]),
)
DONE = {"drafts": [], "summary": "nothing to save"}


def agent(number: int, **changes: Any) -> Agent:
    return Agent(
        agent_id=f"agent_{number}",
        agent_type="cost",
        status="active",
        version="1",
        hostname="h",
        base_url=f"http://agent-{number}",
        pool="default",
        capabilities=["analyze"],
        last_heartbeat_at=now(),
        current_tasks=0,
        load=0.0,
    ).model_copy(update=changes)


class Agents:
    """A platform with these registered agents. `asked` are the hosts that got the task, in order."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        agents: list[Agent],
        answer: Callable[[str], httpx.Response],
        *,
        repeatedly: bool = False,
    ) -> None:
        self.asked: list[str] = []
        self.waits: list[float] = []
        """How long it was to wait for an agent, in seconds, before each attempt."""

        def handle(request: httpx.Request) -> httpx.Response:
            assert repeatedly or request.url.host not in self.asked, f"{request.url.host} is asked again"
            self.asked.append(request.url.host)
            return answer(request.url.host)

        async def list_agents(_platform: Platform) -> list[Agent]:
            return agents

        async def fetch_once(_channel: str, fetch: Any, seconds: float) -> Any:
            self.waits.append(seconds)
            return await fetch()

        self.events: list[tuple[str, str, dict[str, Any], str]] = []

        async def record(
            _session: Any, customer_id: str, kind: str, _source: str, payload: dict[str, Any], *, agent_type: str
        ) -> None:
            self.events.append((customer_id, kind, payload, agent_type))

        monkeypatch.setattr(dispatch, "list_agents", list_agents)
        monkeypatch.setattr(dispatch, "record", record)
        self.platform = cast(
            "Platform",
            SimpleNamespace(
                settings=SimpleNamespace(
                    task_signing_key="s" * 32, agent_task_seconds=5.0, agent_wait_seconds=20.0, agent_pool="default"
                ),
                wake=SimpleNamespace(wait_for=fetch_once),
                tasks_in_flight=Counter[str](),
                database=SimpleNamespace(transaction=nullcontext),
                agents_http=httpx.AsyncClient(transport=httpx.MockTransport(handle)),
            ),
        )

    async def dispatch(self) -> AnalyzeAnswer:
        return await dispatch_task(self.platform, "cost", TASK, AnalyzeAnswer)


def ok(_host: str = "") -> httpx.Response:
    return httpx.Response(200, json=DONE)


async def test_dispatch_task_asks_the_least_loaded_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(monkeypatch, [agent(1, load=0.9), agent(2, load=0.1)], ok)
    assert (await agents.dispatch()).summary == "nothing to save"
    assert agents.asked == ["agent-2"]


async def test_dispatch_task_fails_over_to_another_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str) -> httpx.Response:
        if host == "agent-1":
            raise httpx.ConnectError("refused")
        return httpx.Response(500) if host == "agent-2" else ok()

    agents = Agents(monkeypatch, [agent(n, load=n / 10) for n in (1, 2, 3)], answer)
    assert (await agents.dispatch()).summary == "nothing to save"
    assert agents.asked == ["agent-1", "agent-2", "agent-3"]


def _crash(_host: str) -> httpx.Response:
    raise httpx.ReadError("reset")


def _not_registered_again(_host: str) -> httpx.Response:
    return httpx.Response(401)


def _fail(_host: str) -> httpx.Response:
    return httpx.Response(500)


@pytest.mark.parametrize(("answer", "waits"), [(_crash, True), (_not_registered_again, True), (_fail, False)])
async def test_dispatch_task_waits_only_for_an_agent_that_restarts(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], httpx.Response], waits: bool
) -> None:
    agents = Agents(monkeypatch, [agent(1)], answer)
    with pytest.raises(AgentError, match="agent_1"):
        await agents.dispatch()
    assert [seconds > 15 for seconds in agents.waits] == [True, waits]


async def test_dispatch_task_tells_the_customer_of_agents_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: dict[str, Exception | httpx.Response] = {
        "agent-1": httpx.ReadError("reset"),
        "agent-2": httpx.ConnectError("refused"),
        "agent-3": httpx.RemoteProtocolError("disconnected"),
        "agent-4": httpx.ReadTimeout("slow"),
        "agent-5": httpx.Response(500),
        "agent-6": httpx.Response(200, json={}),
        "agent-7": ok(),
    }

    def answer(host: str) -> httpx.Response:
        found = failures[host]
        if isinstance(found, Exception):
            raise found
        return found

    agents = Agents(monkeypatch, [agent(n, load=n / 10) for n in range(1, 8)], answer)
    await agents.dispatch()
    assert len(agents.asked) == 7
    assert agents.events == [
        ("cust_1", "agent_unhealthy", {"agent_id": died, "task_id": "task_1", "task": "analyze"}, "cost")
        for died in ("agent_1", "agent_2", "agent_3")
    ]


async def test_dispatch_task_that_fails_names_no_address_of_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str) -> httpx.Response:
        if host == "agent-1":
            raise httpx.ConnectError("cannot connect to http://agent-1")
        return httpx.Response(500)

    agents = Agents(monkeypatch, [agent(1), agent(2)], answer)
    with pytest.raises(AgentError, match=r"agent_1.*ConnectError.*agent_2.*answered 500") as failed:
        await agents.dispatch()
    assert "http" not in str(failed.value).lower()


async def test_dispatch_task_treats_an_invalid_answer_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str) -> httpx.Response:
        return httpx.Response(200, json={"drafts": "none"}) if host == "agent-1" else ok()

    agents = Agents(monkeypatch, [agent(1), agent(2, load=0.1)], answer)
    assert (await agents.dispatch()).drafts == []
    assert agents.asked == ["agent-1", "agent-2"]


@pytest.mark.parametrize(
    "properties", [{"agent_type": "performance"}, {"status": "unhealthy"}, {"capabilities": ["judge"]}]
)
async def test_dispatch_task_skips_ineligible_agents(
    monkeypatch: pytest.MonkeyPatch, properties: dict[str, Any]
) -> None:
    agents = Agents(monkeypatch, [agent(1, **properties)], ok)
    with pytest.raises(AgentError, match="no cost agent that can analyze registered within"):
        await agents.dispatch()
    assert agents.asked == []


async def test_dispatch_task_names_the_answer_of_every_agent_when_all_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(monkeypatch, [agent(1), agent(2)], lambda _: httpx.Response(502))
    with pytest.raises(AgentError, match=r"agent_1.*502.*agent_2.*502"):
        await agents.dispatch()


@pytest.mark.parametrize("problem", [STORE_UNAVAILABLE, STARTING])
async def test_dispatch_task_retries_a_temporarily_unavailable_agent(
    monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    answers = iter([httpx.Response(503, json={"type": problem}), httpx.Response(503), ok()])
    agents = Agents(monkeypatch, [agent(1), agent(2, load=0.1)], lambda _: next(answers), repeatedly=True)
    (answer,) = await asyncio.gather(agents.dispatch(), return_exceptions=True)
    assert agents.asked == ["agent-1", "agent-2", "agent-1"]
    assert isinstance(answer, AnalyzeAnswer)


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"type": "urn:optiinfra:problem:deadline", "detail": STORE_UNAVAILABLE}},
        {"json": [STORE_UNAVAILABLE]},
        {"text": STORE_UNAVAILABLE},
    ],
)
async def test_dispatch_task_does_not_retry_after_any_other_503(
    monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    agents = Agents(monkeypatch, [agent(1)], lambda _: httpx.Response(503, **body))
    with pytest.raises(AgentError, match=r"agent_1.*503"):
        await agents.dispatch()
    assert agents.asked == ["agent-1"]


async def test_dispatch_task_ignores_agents_of_another_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(monkeypatch, [agent(1, pool="others"), agent(2, load=0.9)], ok)
    await agents.dispatch()
    assert agents.asked == ["agent-2"]


async def test_dispatch_task_shares_concurrent_tasks_between_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(monkeypatch, [agent(1), agent(2), agent(3, load=0.25, current_tasks=2)], ok)
    all_sent = asyncio.Barrier(7)

    async def handle(request: httpx.Request) -> httpx.Response:
        agents.asked.append(request.url.host)
        await all_sent.wait()
        return ok()

    client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    monkeypatch.setattr(agents.platform, "agents_http", client)
    async with asyncio.timeout(10):
        await asyncio.gather(*(agents.dispatch() for _ in range(7)))
    assert Counter(agents.asked) == {"agent-1": 3, "agent-2": 3, "agent-3": 1}
    assert not agents.platform.tasks_in_flight


async def test_dispatch_task_counts_no_task_in_flight_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents(monkeypatch, [agent(1)], _crash)
    with pytest.raises(AgentError):
        await agents.dispatch()
    assert not agents.platform.tasks_in_flight


@pytest.mark.parametrize(("reported", "in_flight", "expected"), [(0, 0, 1), (3, 3, 1), (3, 4, 2), (4, 0, 1)])
async def test_dispatch_task_counts_only_tasks_that_no_heartbeat_has_reported(
    monkeypatch: pytest.MonkeyPatch, reported: int, in_flight: int, expected: int
) -> None:
    agents = Agents(monkeypatch, [agent(1, load=0.4, current_tasks=reported), agent(2, load=0.5)], ok)
    agents.platform.tasks_in_flight["agent_1"] = in_flight
    await agents.dispatch()
    assert agents.asked == [f"agent-{expected}"]
