"""The task route of an agent, and its life from start to deregistration."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import jwt
import pytest
from fastapi import FastAPI

from optiinfra.agents.base import app as base
from optiinfra.agents.base.agent import AgentKind
from optiinfra.agents.base.app import MOST_TASK_VALUES, AgentApp, create_agent
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.base.sources import Sources
from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask, JudgeTask
from optiinfra.api.common import now
from optiinfra.api.customers import Preferences
from optiinfra.kit.task_requests import TaskSigner
from tests.unit.agents.estate import deployment, infrastructure, instances
from tests.unit.agents.fakes import FakeOutcomes, FakeTelemetry, fake_sources
from tests.unit.agents.registry import ENROLMENT_SECRET, FakeRegistry
from tests.unit.logs import logged

pytestmark = pytest.mark.anyio


class Analysis:
    """An analysis that counts how often it runs."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, _task: AnalyzeTask, _sources: Sources) -> AnalyzeAnswer:
        self.runs += 1
        return AnalyzeAnswer(drafts=[], summary=f"run {self.runs}")


@pytest.fixture
def analysis() -> Analysis:
    return Analysis()


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def unused_port() -> Iterator[socket.socket]:
    """A bound socket that does not listen yet."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def create(
    registry: FakeRegistry, analysis: Analysis, port: int, sources: Sources | None = None, deadline: float = 5.0
) -> tuple[FastAPI, AgentApp]:
    settings = AgentSettings(
        orchestrator_url="http://orchestrator",
        enrolment_secret=ENROLMENT_SECRET,
        start_deadline_seconds=deadline,
        clickhouse_url="",
        clickhouse_user="",
        clickhouse_password="clickhouse-password-of-the-unit-tests",
        qdrant_url="",
        qdrant_api_key="qdrant-api-key-of-the-unit-tests-long",
    )

    async def connect() -> Sources:
        return sources or fake_sources()

    kind = AgentKind("cost", "cost-agent", {"analyze": analysis})
    return create_agent(kind, settings, port, connect=connect, client=registry.client())


def port_of(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


@pytest.fixture
async def orchestrator(registry: FakeRegistry, analysis: Analysis) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a registered agent, which is `agent_1`."""
    app, agent = create(registry, analysis, 1)
    agent.sources = fake_sources()
    await agent.registration.register(5.0)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        yield client


def analyze_task(task_id: str = "task_1") -> bytes:
    task = AnalyzeTask(task_id=task_id, customer_id="c", preferences=Preferences(), infrastructure=infrastructure([]))
    return task.model_dump_json().encode()


def headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def signed(
    registry: FakeRegistry, body: bytes, *, agent_id: str = "agent_1", task_id: str = "task_1"
) -> dict[str, str]:
    return headers(registry.signer.sign(agent_id, task_id, body))


def with_enrolment_secret(registry: FakeRegistry) -> dict[str, str]:
    """What was accepted once: every agent knows this secret."""
    token = registry.signer.sign("agent_1", "task_1", analyze_task())
    claims = jwt.decode(token, options={"verify_signature": False})
    return headers(jwt.encode(claims, ENROLMENT_SECRET, algorithm="HS256"))


@pytest.mark.parametrize(
    "credential",
    [
        lambda _: {},
        lambda _: headers(ENROLMENT_SECRET),
        lambda registry: headers(registry.known_secret),
        with_enrolment_secret,
        lambda registry: signed(registry, analyze_task(), agent_id="agent_2"),
        lambda _: headers(TaskSigner("another secret, which is not ours").sign("agent_1", "task_1", analyze_task())),
        lambda registry: signed(registry, analyze_task(), task_id="task_2"),
        lambda registry: signed(registry, analyze_task("task_2"), task_id="task_2"),
        lambda registry: signed(registry, b"{}"),
    ],
)
async def test_task_with_a_token_not_for_this_agent_is_unauthorized(
    orchestrator: httpx.AsyncClient,
    registry: FakeRegistry,
    analysis: Analysis,
    credential: Callable[[FakeRegistry], dict[str, str]],
) -> None:
    answer = await orchestrator.post("/tasks", content=analyze_task(), headers=credential(registry))
    assert (answer.status_code, analysis.runs) == (401, 0)


async def test_body_that_was_not_signed_is_refused_before_its_shape_is_checked(
    orchestrator: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    assert (await orchestrator.post("/tasks", content=b"{}", headers=signed(registry, b"[]"))).status_code == 401
    assert (await orchestrator.post("/tasks", content=b"{}", headers=signed(registry, b"{}"))).status_code == 422


async def test_task_about_an_estate_of_twenty_thousand_instances_is_accepted(
    orchestrator: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    owned = instances(20_000)
    deployments = [deployment(owned[first : first + 4_000], name=f"d-{first}") for first in range(0, 20_000, 4_000)]
    task = AnalyzeTask(
        task_id="task_1", customer_id="c", preferences=Preferences(), infrastructure=infrastructure(owned, *deployments)
    )
    body = task.model_dump_json().encode()
    answer = await orchestrator.post("/tasks", content=body, headers=signed(registry, body))
    assert answer.status_code == 200, answer.text[:300]
    too_much = b"[" + b"[]," * MOST_TASK_VALUES + b"[]]"
    answer = await orchestrator.post("/tasks", content=too_much, headers=signed(registry, too_much))
    assert answer.status_code == 413


async def test_task_of_an_unsupported_kind_is_refused_with_the_supported_kinds(
    orchestrator: httpx.AsyncClient, registry: FakeRegistry
) -> None:
    task = JudgeTask(
        look=1,
        task_id="task_1",
        customer_id="c",
        deployment_id="d",
        stage="s",
        since=now(),
        replica_ids=[],
        slo_p95_latency_ms=1,
        slo_quality=1,
        baseline_quality=1,
    )
    body = task.model_dump_json().encode()
    answer = await orchestrator.post("/tasks", content=body, headers=signed(registry, body))
    assert answer.status_code == 422
    assert "the cost agent does not serve judge tasks; it serves: analyze" in answer.json()["detail"]


async def test_task_posted_again_gets_the_first_answer(
    orchestrator: httpx.AsyncClient, registry: FakeRegistry, analysis: Analysis
) -> None:
    body = analyze_task()
    answers = [await orchestrator.post("/tasks", content=body, headers=signed(registry, body)) for _ in range(2)]
    assert [answer.json()["summary"] for answer in answers] == ["run 1", "run 1"]
    assert analysis.runs == 1


async def test_task_before_the_registration_is_answered_waits_for_it(
    registry: FakeRegistry, analysis: Analysis
) -> None:
    app, agent = create(registry, analysis, 1)
    agent.sources = fake_sources()
    registry.answering.clear()
    registering = asyncio.create_task(agent.registration.register(5.0))
    await registry.called.acquire()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agent") as client:
        body = analyze_task()
        posted = asyncio.create_task(client.post("/tasks", content=body, headers=signed(registry, body)))
        done, _ = await asyncio.wait([posted], timeout=0.05)
        assert not done
        registry.answering.set()
        assert (await posted).status_code == 200
    await registering


async def test_lifespan_registers_once_the_port_answers_and_closes_everything_at_the_end(
    unused_port: socket.socket, registry: FakeRegistry, analysis: Analysis
) -> None:
    telemetry, outcomes = FakeTelemetry(), FakeOutcomes()
    app, agent = create(registry, analysis, port_of(unused_port), Sources(telemetry, outcomes))
    async with asyncio.timeout(10), agent.lifespan(app):
        await asyncio.sleep(0.1)  # several checks of a port that does not answer yet
        assert registry.calls == []
        unused_port.listen()
        await registry.called.acquire()
    assert registry.calls == ["POST /orchestrator/agents/register", "DELETE /orchestrator/agents/agent_1"]
    assert (telemetry.closed, outcomes.closed, registry.client().is_closed) == (True, True, True)


async def test_lifespan_whose_port_never_answers_ends_the_process_with_a_logged_error(
    unused_port: socket.socket, registry: FakeRegistry, analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr(signal, "raise_signal", raised.put_nowait)
    port = port_of(unused_port)
    app, agent = create(registry, analysis, port, deadline=0.05)
    with logged(base) as logs:
        async with asyncio.timeout(10), agent.lifespan(app):
            assert await raised.get() == signal.SIGTERM
    assert logs[0]["event"] == "agent start failed"
    assert f"our own port {port} did not answer" in logs[0]["error"]
    assert registry.calls == []
