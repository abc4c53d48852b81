"""When an agent joins the registry, and when it leaves: never without being there for its tasks."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from typing import cast

import httpx
import jwt
import pytest
from fastapi import FastAPI

from optiinfra.agents.base import app as base
from optiinfra.agents.base.agent import AgentKind, Sources
from optiinfra.agents.base.app import AgentApp, create_agent
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask
from optiinfra.api.customers import Preferences
from optiinfra.kit import http
from tests.unit.agents.estate import infrastructure
from tests.unit.logs import logged

SECRET = "enrolment-secret-of-the-unit-tests-long-enough"
pytestmark = pytest.mark.anyio


async def nothing(_task: AnalyzeTask, _sources: Sources) -> AnalyzeAnswer:
    return AnalyzeAnswer(drafts=[], summary="nothing")


class Registry:
    """An orchestrator that notes its calls, and may be slow to answer a registration."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answer = asyncio.Event()
        self.answer.set()
        self.called = asyncio.Event()
        self.body: dict[str, object] = {"agent_id": "agent_1", "agent_secret": "s", "heartbeat_seconds": 60}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.path}")
        self.called.set()
        await self.answer.wait()
        return httpx.Response(200, json=self.body)


class Closing:
    """A store that can only be closed."""

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port of our own that nobody listens on yet."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture
def port(taken: socket.socket) -> int:
    found: int = taken.getsockname()[1]
    return found


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    client = httpx.AsyncClient(transport=httpx.MockTransport(made), base_url="http://orchestrator")
    monkeypatch.setattr(http, "client", lambda _url: client)

    async def connect(_agent: AgentApp) -> Sources:
        return cast("Sources", type("Stores", (), {"telemetry": Closing(), "outcomes": Closing()})())

    monkeypatch.setattr(AgentApp, "_connect", connect)
    return made


def agent(port: int, deadline: float = 5.0) -> tuple[FastAPI, AgentApp]:
    settings = AgentSettings(
        orchestrator_url="http://orchestrator",
        enrolment_secret=SECRET,
        clickhouse_url="",
        clickhouse_user="",
        clickhouse_password="",
        qdrant_url="",
        qdrant_api_key="",
        start_deadline_seconds=deadline,
    )
    return create_agent(AgentKind("cost", "cost-agent", {"analyze": nothing}), settings, port)


async def test_an_agent_registers_when_its_port_answers_and_closes_what_it_opened(
    taken: socket.socket, port: int, registry: Registry
) -> None:
    app, running = agent(port)
    async with asyncio.timeout(10), running.lifespan(app):
        await asyncio.sleep(0.1)  # several looks at a port that does not answer yet
        assert registry.calls == []
        taken.listen()
        await registry.called.wait()
    assert registry.calls == ["POST /orchestrator/agents/register", "DELETE /orchestrator/agents/agent_1"]
    assert http.client("").is_closed


async def test_an_agent_whose_port_never_answers_ends_with_a_word(
    port: int, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr(signal, "raise_signal", raised.put_nowait)
    app, running = agent(port, deadline=0.05)
    with logged(base) as logs:
        async with asyncio.timeout(10), running.lifespan(app):
            assert await raised.get() == signal.SIGTERM
    assert f"our own port {port} did not answer" in logs[0]["error"]
    assert registry.calls == []


async def test_a_task_that_comes_before_the_registry_has_answered_is_served(port: int, registry: Registry) -> None:
    app, running = agent(port)
    running.sources = cast("Sources", object())
    registry.answer.clear()
    registering = asyncio.create_task(running.registration.register(5.0))
    await registry.called.wait()
    token = jwt.encode({"aud": "agent_1", "sub": "orchestrator", "exp": 2**32}, SECRET, algorithm="HS256")
    task = AnalyzeTask(task_id="t", customer_id="c", preferences=Preferences(), infrastructure=infrastructure([]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agent") as client:
        posted = asyncio.create_task(
            client.post("/tasks", json=task.model_dump(mode="json"), headers={"Authorization": f"Bearer {token}"})
        )
        done, _ = await asyncio.wait([posted], timeout=0.05)
        assert not done
        registry.answer.set()
        assert (await posted).status_code == 200
    await registering


async def test_an_answer_of_the_registry_that_makes_no_sense_does_not_end_the_heartbeats(
    port: int, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, running = agent(port)
    registry.body["heartbeat_seconds"] = 0.01
    await running.registration.register(5.0)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        beats += 1
        registry.body = {} if beats == 1 else {"agent_id": "agent_2", "agent_secret": "s", "heartbeat_seconds": 60}
        await running.registration._register()

    monkeypatch.setattr(running.registration, "beat", beat)
    keeping = asyncio.create_task(running.registration.keep())
    async with asyncio.timeout(5):
        while running.registration.agent_id != "agent_2":  # noqa: ASYNC110  the id is all there is to see
            await asyncio.sleep(0.01)
    assert (beats, keeping.done()) == (2, False)
    keeping.cancel()
