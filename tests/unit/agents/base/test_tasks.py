"""The task route: who may call it, what it serves, and that nothing is done twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import cast

import httpx
import jwt
import pytest

from optiinfra.agents.base.agent import AgentKind, Sources
from optiinfra.agents.base.app import AgentApp, create_agent
from optiinfra.agents.base.registration import Registration
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.base.tasks import TaskDesk
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask, JudgeTask, Register
from optiinfra.api.common import now
from optiinfra.api.customers import Preferences
from tests.unit.agents.estate import infrastructure

SECRET = "enrolment-secret-of-the-unit-tests-long-enough"
pytestmark = pytest.mark.anyio


class Counting:
    """An analysis that counts how often it is run, and fails when told to."""

    def __init__(self) -> None:
        self.runs, self.fail = 0, False
        self.started, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, _task: AnalyzeTask, _sources: Sources) -> AnalyzeAnswer:
        self.runs += 1
        self.started.set()
        await self.go.wait()
        if self.fail:
            raise RuntimeError("told to")
        return AnalyzeAnswer(drafts=[], summary=f"run {self.runs}")


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def agent(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> tuple[httpx.AsyncClient, AgentApp]:
    settings = AgentSettings(
        orchestrator_url="http://orchestrator",
        enrolment_secret=SECRET,
        clickhouse_url="http://clickhouse",
        clickhouse_user="reader",
        clickhouse_password="reader",
        qdrant_url="http://qdrant",
        qdrant_api_key="key",
    )
    app, running = create_agent(AgentKind("cost", "cost-agent", {"analyze": counting}), settings, 1)
    running.sources = cast("Sources", object())
    monkeypatch.setattr(Registration, "agent_id", "agent_1")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://agent"), running


def token(**changes: object) -> dict[str, str]:
    claims = {"aud": "agent_1", "sub": "orchestrator", "exp": int(time.time()) + 60} | changes
    key = str(claims.pop("key", SECRET))
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm='HS256')}"}


def analysis(task_id: str = "task_1") -> dict[str, object]:
    task = AnalyzeTask(task_id=task_id, customer_id="c", preferences=Preferences(), infrastructure=infrastructure([]))
    return task.model_dump(mode="json")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        token(aud="agent_2"),
        token(sub="somebody"),
        token(exp=int(time.time()) - 5),
        token(key="another-secret-which-is-not-ours-at-all"),
    ],
)
async def test_only_the_orchestrators_token_for_this_agent_counts(
    agent: tuple[httpx.AsyncClient, AgentApp], headers: dict[str, str], counting: Counting
) -> None:
    counting.go.set()  # whoever got in is answered
    answer = await agent[0].post("/tasks", json=analysis(), headers=headers)
    assert (answer.status_code, counting.runs) == (401, 0)


async def test_a_kind_that_is_not_served_is_refused_with_what_is(agent: tuple[httpx.AsyncClient, AgentApp]) -> None:
    task = JudgeTask(
        look=1,
        task_id="t",
        customer_id="c",
        deployment_id="d",
        stage="s",
        since=now(),
        replica_ids=[],
        slo_p95_latency_ms=1,
        slo_quality=1,
        baseline_quality=1,
    )
    answer = await agent[0].post("/tasks", json=task.model_dump(mode="json"), headers=token())
    assert answer.status_code == 422
    assert "the cost agent does not serve judge tasks; it serves: analyze" in answer.json()["detail"]


async def test_the_same_task_is_done_once_while_running_and_after(
    agent: tuple[httpx.AsyncClient, AgentApp], counting: Counting
) -> None:
    client, running = agent
    both = [asyncio.create_task(client.post("/tasks", json=analysis(), headers=token())) for _ in range(2)]
    await asyncio.wait_for(counting.started.wait(), 2)
    assert running.desk.current == 1
    counting.go.set()
    answers = [*await asyncio.gather(*both), await client.post("/tasks", json=analysis(), headers=token())]
    assert [answer.json()["summary"] for answer in answers] == ["run 1"] * 3
    assert counting.runs == 1
    other = await client.post("/tasks", json=analysis("task_2"), headers=token())
    assert other.json()["summary"] == "run 2"
    assert running.desk.current == 0


async def test_a_failed_task_may_be_tried_again(agent: tuple[httpx.AsyncClient, AgentApp], counting: Counting) -> None:
    counting.go.set()
    counting.fail = True
    assert (await agent[0].post("/tasks", json=analysis(), headers=token())).status_code == 500
    counting.fail = False
    assert (await agent[0].post("/tasks", json=analysis(), headers=token())).json()["summary"] == "run 2"


async def test_a_caller_that_hangs_up_does_not_end_the_work() -> None:
    desk, go = TaskDesk(), asyncio.Event()

    async def work() -> AnalyzeAnswer:
        await go.wait()
        return AnalyzeAnswer(drafts=[], summary="done")

    first = asyncio.create_task(desk.do("t", work))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.create_task(desk.do("t", work))
    await asyncio.sleep(0)
    go.set()
    assert isinstance(answer := await second, AnalyzeAnswer)
    assert answer.summary == "done"


class Registry:
    """An orchestrator's registry that can forget its agents, or be away."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.known, self.away, self.count = "", False, 0
        self.called = asyncio.Semaphore(0)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.path}")
        self.called.release()
        if self.away:
            raise httpx.ConnectError("refused")
        given = request.headers["authorization"].removeprefix("Bearer ")
        if request.url.path.endswith("/register"):
            self.count += 1
            self.known = f"secret-{self.count}"
            body = {"agent_id": f"agent_{self.count}", "agent_secret": self.known, "heartbeat_seconds": 0.01}
            return httpx.Response(201 if given == SECRET else 401, json=body)
        if given != self.known:
            return httpx.Response(401, json={})
        return httpx.Response(204 if request.method == "DELETE" else 200, json={"ok": True})


@pytest.fixture
async def registered() -> AsyncIterator[tuple[Registry, Registration]]:
    registry = Registry()
    client = httpx.AsyncClient(transport=httpx.MockTransport(registry), base_url="http://orchestrator")
    card = Register(agent_type="cost", version="1", capabilities=["analyze"], hostname="h", base_url="http://a")
    registration = Registration(client, SECRET, card, lambda: 0)
    await registration.register(1.0)
    yield registry, registration
    await client.aclose()


async def test_an_agent_that_was_forgotten_registers_anew(registered: tuple[Registry, Registration]) -> None:
    registry, registration = registered
    await registration.beat()
    assert registration.agent_id == "agent_1"
    registry.known = ""
    await registration.beat()
    assert registration.agent_id == "agent_2"
    await registration.leave()
    assert registry.calls[-1] == "DELETE /orchestrator/agents/agent_2"


async def test_a_heartbeat_that_fails_is_tried_again(registered: tuple[Registry, Registration]) -> None:
    registry, registration = registered
    registry.away, registry.called = True, asyncio.Semaphore(0)
    keeping = asyncio.create_task(registration.keep())
    async with asyncio.timeout(2):
        for away in (True, True, False, False):
            registry.away = away
            await registry.called.acquire()
    assert not keeping.done()
    assert registration.agent_id == "agent_1"
    keeping.cancel()
