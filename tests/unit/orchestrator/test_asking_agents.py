"""Handing tasks to agents: the least loaded first, another when one fails, and a clear word when none can."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from optiinfra.api.agents import Agent, AnalyzeAnswer, AnalyzeTask
from optiinfra.api.common import now
from optiinfra.api.customers import Infrastructure, Preferences
from optiinfra.orchestrator.agents import service
from optiinfra.orchestrator.platform import Platform

pytestmark = pytest.mark.anyio

TASK = AnalyzeTask(
    task_id="task_1",
    customer_id="cust_1",
    preferences=Preferences(),
    infrastructure=Infrastructure(status="discovered", instances=[], vllm_deployments=[]),
)
DONE = {"drafts": [], "summary": "nothing to save"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


class Asked:
    """A platform whose registry holds these agents, and the hosts that were asked, in order."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        agents: list[Agent],
        answer: Callable[[str], httpx.Response],
        *,
        again: bool = False,
    ) -> None:
        self.hosts: list[str] = []
        self.patience: list[float] = []

        def handle(request: httpx.Request) -> httpx.Response:
            assert again or request.url.host not in self.hosts, f"{request.url.host} is asked again"
            self.hosts.append(request.url.host)
            return answer(request.url.host)

        async def listing(_platform: Platform) -> list[Agent]:
            return agents

        async def look_once(_channel: str, fetch: Any, seconds: float) -> Any:
            self.patience.append(seconds)
            return await fetch()

        monkeypatch.setattr(service, "listing", listing)
        self.platform = cast(
            "Platform",
            SimpleNamespace(
                settings=SimpleNamespace(
                    enrolment_secret="s" * 32, agent_task_seconds=5.0, agent_wait_seconds=20.0, agent_pool="default"
                ),
                wake=SimpleNamespace(wait_for=look_once),
                agents_http=httpx.AsyncClient(transport=httpx.MockTransport(handle)),
            ),
        )

    async def ask(self) -> AnalyzeAnswer:
        return await service.ask(self.platform, "cost", TASK, AnalyzeAnswer)


async def test_the_least_loaded_agent_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, [agent(1, load=0.9), agent(2, load=0.1)], lambda _: httpx.Response(200, json=DONE))
    assert (await asked.ask()).summary == "nothing to save"
    assert asked.hosts == ["agent-2"]


async def test_another_agent_is_asked_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str) -> httpx.Response:
        if host == "agent-1":
            raise httpx.ConnectError("refused")
        return httpx.Response(500) if host == "agent-2" else httpx.Response(200, json=DONE)

    asked = Asked(monkeypatch, [agent(n, load=n / 10) for n in (1, 2, 3)], answer)
    assert (await asked.ask()).summary == "nothing to save"
    assert asked.hosts == ["agent-1", "agent-2", "agent-3"]


async def test_one_that_comes_back_is_waited_for_and_one_that_fails_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crashed(_host: str) -> httpx.Response:
        raise httpx.ReadError("reset")

    def started_again(_host: str) -> httpx.Response:
        return httpx.Response(401)  # it is not registered anew yet, and does not know its former id

    for answer, waits in ((crashed, True), (started_again, True), (lambda _: httpx.Response(500), False)):
        asked = Asked(monkeypatch, [agent(1)], answer)
        with pytest.raises(service.AgentError, match="agent_1"):
            await asked.ask()
        assert [seconds > 15 for seconds in asked.patience] == [True, waits]


async def test_an_answer_of_another_shape_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str) -> httpx.Response:
        return httpx.Response(200, json={"drafts": "none"} if host == "agent-1" else DONE)

    asked = Asked(monkeypatch, [agent(1), agent(2, load=0.1)], answer)
    assert (await asked.ask()).drafts == []
    assert asked.hosts == ["agent-1", "agent-2"]


@pytest.mark.parametrize("unfit", [{"agent_type": "performance"}, {"status": "unhealthy"}, {"capabilities": ["judge"]}])
async def test_agents_that_cannot_do_it_are_not_asked(monkeypatch: pytest.MonkeyPatch, unfit: dict[str, Any]) -> None:
    asked = Asked(monkeypatch, [agent(1, **unfit)], lambda _: httpx.Response(200, json=DONE))
    with pytest.raises(service.AgentError, match="no cost agent that can analyze was there"):
        await asked.ask()
    assert asked.hosts == []


async def test_when_all_fail_the_error_says_what_each_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, [agent(1), agent(2)], lambda _: httpx.Response(502))
    with pytest.raises(service.AgentError, match=r"agent_1.*502.*agent_2.*502"):
        await asked.ask()


async def test_one_that_misses_a_store_is_asked_again_when_nobody_else_can(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = httpx.Response(503, json={"type": "urn:optiinfra:problem:store_unavailable"})
    answers = iter([missing, httpx.Response(503), httpx.Response(200, json=DONE)])
    asked = Asked(monkeypatch, [agent(1), agent(2, load=0.1)], lambda _: next(answers), again=True)
    (answer,) = await asyncio.gather(asked.ask(), return_exceptions=True)
    assert asked.hosts == ["agent-1", "agent-2", "agent-1"]
    assert isinstance(answer, AnalyzeAnswer)


async def test_agents_of_another_pool_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, [agent(1, pool="others"), agent(2, load=0.9)], lambda _: httpx.Response(200, json=DONE))
    await asked.ask()
    assert asked.hosts == ["agent-2"]
