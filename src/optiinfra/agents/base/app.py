"""The application that every agent is: one task route, which only the orchestrator may call."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import Annotated

import httpx
import jwt
import structlog
from fastapi import Depends, FastAPI, Request
from starlette.requests import HTTPConnection

from optiinfra.agents.base import sources
from optiinfra.agents.base.agent import AgentKind, AnyTask
from optiinfra.agents.base.registration import Registration
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.base.sources import Sources
from optiinfra.agents.base.tasks import TaskRunner
from optiinfra.api.agents import AnalyzeAnswer, JudgeAnswer, Register, Task, Validation
from optiinfra.api.problems import STARTING, kind_of
from optiinfra.kit import http
from optiinfra.kit.app import create_app, serve
from optiinfra.kit.auth import Principal, bearer
from optiinfra.kit.problems import Problem
from optiinfra.kit.retries import DeadlineError, retry_until_deadline
from optiinfra.kit.task_requests import TaskClaims, verify

log = structlog.get_logger(__name__)

Connect = Callable[[], Awaitable[Sources]]

MOST_TASK_VALUES = 2_000_000
"""An estate of 20,000 replicas with their engine arguments has less than half of it."""
_OTHER_TASK = "the token was signed for another task"


class AgentApp:
    """One running agent: its sources, its registration and its tasks."""

    def __init__(
        self,
        kind: AgentKind,
        settings: AgentSettings,
        port: int,
        *,
        connect: Connect | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._kind, self._settings, self._port = kind, settings, port
        self._connect = connect or partial(sources.connect, settings, needs_outcomes=kind.needs_outcomes)
        self.runner = TaskRunner()
        self.sources: Sources | None = None
        self.registration = Registration(
            client or http.client(settings.orchestrator_url),
            settings.enrolment_secret,
            Register(
                agent_type=kind.type,
                version=settings.version,
                capabilities=kind.capabilities,
                hostname=socket.gethostname(),
                base_url=f"http://{_own_address(settings)}:{port}",
                pool=settings.agent_pool,
            ),
            lambda: self.runner.in_progress,
        )

    async def authenticate(self, connection: HTTPConnection) -> Principal | None:
        """The orchestrator, by a token that it signed for this agent. It is for one task, see `_signed_task`."""
        if (token := bearer(connection)) is None or not (registered := await self.registration.current()):
            return None
        try:
            connection.state.task_claims = verify(token, registered.task_key, registered.agent_id)
        except jwt.InvalidTokenError as error:
            log.warning("orchestrator token rejected", reason=str(error))
            return None
        return Principal("orchestrator", "orchestrator")

    async def answer(self, task: AnyTask) -> AnalyzeAnswer | Validation | JudgeAnswer:
        """The answer to a task, which runs once however often it is delivered."""
        handler = self._kind.handlers.get(task.kind)
        if handler is None:
            serves = ", ".join(self._kind.capabilities)
            text = f"the {self._kind.type} agent does not serve {task.kind} tasks; it serves: {serves}"
            raise Problem(422, "unsupported_task", text)
        return await self.runner.run(task.task_id, partial(handler, task, self._connected_sources()))

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Connect to the stores, stay registered while tasks are served, and deregister at the end."""
        try:
            self.sources = await self._connect()
        except DeadlineError as error:
            log.error("agent start failed", error=str(error))  # noqa: TRY400  the text is enough
            raise
        membership = asyncio.create_task(self._stay_registered())
        try:
            yield
        finally:
            membership.cancel()
            await asyncio.gather(membership, return_exceptions=True)
            await self.registration.deregister()
            await self.registration.close()
            await self.sources.close()

    async def _stay_registered(self) -> None:
        """Register once the port accepts connections, which is after the lifespan has started; then send heartbeats."""
        deadline = self._settings.start_deadline_seconds
        try:
            await retry_until_deadline(self._check_port, f"our own port {self._port}", deadline, interval=0.02)
            await self.registration.register(deadline)
        except DeadlineError as error:
            log.error("agent start failed", error=str(error))  # noqa: TRY400  the text is enough
            signal.raise_signal(signal.SIGTERM)  # uvicorn shuts down gracefully
            return
        await self.registration.send_heartbeats()

    async def _check_port(self) -> None:
        _, writer = await asyncio.open_connection(self._settings.host, self._port)
        writer.close()
        await writer.wait_closed()

    def _connected_sources(self) -> Sources:
        if self.sources is None:
            raise Problem(503, kind_of(STARTING), "this agent is not connected to its stores yet")
        return self.sources

    async def check_telemetry(self) -> None:
        """Raises when ClickHouse does not answer."""
        await self._connected_sources().telemetry.ping()

    async def check_outcomes(self) -> None:
        """Raises when Qdrant does not answer."""
        await self._connected_sources().outcomes.ping()


async def _signed_task(request: Request) -> TaskClaims:
    """What the token allows, if the body is the one that was signed. A dependency: checked before the body's shape."""
    claims: TaskClaims = request.state.task_claims
    if not claims.covers(await request.body()):
        raise Problem(401, "unauthenticated", _OTHER_TASK)
    return claims


def create_agent(
    kind: AgentKind,
    settings: AgentSettings,
    port: int,
    *,
    connect: Connect | None = None,
    client: httpx.AsyncClient | None = None,
) -> tuple[FastAPI, AgentApp]:
    """The web application of an agent, and the agent behind it.

    `connect` gives the sources and `client` calls the orchestrator; by default both follow the settings.
    """
    agent = AgentApp(kind, settings, port, connect=connect, client=client)
    outcomes_check = {"qdrant": agent.check_outcomes} if kind.needs_outcomes else {}
    app = create_app(
        kind.service,
        settings.version,
        lifespan=agent.lifespan,
        authenticate=agent.authenticate,
        long_calls=("POST /tasks",),  # the orchestrator has a deadline of its own for them
        large_bodies=("POST /tasks",),
        most_values=MOST_TASK_VALUES,
        checks={"clickhouse": agent.check_telemetry} | outcomes_check,
    )

    @app.post("/tasks")
    async def tasks(
        task: Task, claims: Annotated[TaskClaims, Depends(_signed_task)]
    ) -> AnalyzeAnswer | Validation | JudgeAnswer:
        if task.task_id != claims.task_id:
            raise Problem(401, "unauthenticated", _OTHER_TASK)
        return await agent.answer(task)

    return app, agent


def run(kind: AgentKind, settings: AgentSettings, port: int) -> None:
    """Serve an agent until the process is stopped."""
    app, _ = create_agent(kind, settings, port)
    serve(app, settings.host, port)


def _own_address(settings: AgentSettings) -> str:
    """The address for the orchestrator: in a container, which listens on all of its own, that of its host name."""
    everywhere = ip_address(settings.host).is_unspecified
    return socket.gethostbyname(socket.gethostname()) if everywhere else settings.host
