"""The application that every agent is: one task route, for the orchestrator alone."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import jwt
import structlog
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from optiinfra.agents.base.agent import AgentKind, AnyTask, Sources
from optiinfra.agents.base.registration import Registration
from optiinfra.agents.base.settings import AgentSettings
from optiinfra.agents.base.tasks import TaskDesk
from optiinfra.api.agents import AnalyzeAnswer, JudgeAnswer, Register, Task, Validation
from optiinfra.api.problems import STARTING, kind_of
from optiinfra.kit import http
from optiinfra.kit.app import create_app, serve
from optiinfra.kit.auth import Principal, bearer
from optiinfra.kit.problems import Problem
from optiinfra.kit.retries import DeadlineError, retry_until_deadline
from optiinfra.stores.clickhouse import Telemetry
from optiinfra.stores.qdrant import OutcomeMemory

log = structlog.get_logger(__name__)


class AgentApp:
    """One running agent: what it reads from, its registration, and its tasks."""

    def __init__(self, kind: AgentKind, settings: AgentSettings, port: int) -> None:
        self._kind, self._settings, self._port = kind, settings, port
        self.desk = TaskDesk()
        self.sources: Sources | None = None
        self.registration = Registration(
            http.client(settings.orchestrator_url),
            settings.enrolment_secret,
            Register(
                agent_type=kind.type,
                version=settings.version,
                capabilities=kind.capabilities,
                hostname=socket.gethostname(),
                base_url=f"http://{settings.host}:{port}",
                pool=settings.agent_pool,
            ),
            lambda: self.desk.current,
        )

    async def authenticate(self, connection: HTTPConnection) -> Principal | None:
        """The orchestrator, by a token that it signed for this very agent."""
        if (token := bearer(connection)) is None or not (agent_id := await self.registration.known_as()):
            return None
        try:
            claims = jwt.decode(
                token,
                self._settings.enrolment_secret,
                algorithms=["HS256"],
                audience=agent_id,
                options={"require": ["aud", "exp", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            log.warning("token refused", reason=str(error))
            return None
        return Principal("orchestrator", claims["sub"]) if claims["sub"] == "orchestrator" else None

    async def work(self, task: AnyTask) -> AnalyzeAnswer | Validation | JudgeAnswer:
        """Do a task, once however often it comes."""
        handler = self._kind.handlers.get(task.kind)
        if handler is None:
            serves = ", ".join(self._kind.capabilities)
            text = f"the {self._kind.type} agent does not serve {task.kind} tasks; it serves: {serves}"
            raise Problem(422, "unsupported_task", text)
        if self.sources is None:
            raise Problem(503, kind_of(STARTING), "this agent is not connected to its stores yet")
        return await self.desk.do(task.task_id, partial(handler, task, self.sources))

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Connect, and be registered while tasks are served; leave at the end."""
        try:
            self.sources = await self._connect()
        except DeadlineError as error:
            log.error("cannot start", error=str(error))  # noqa: TRY400  the text says it all
            raise
        membership = asyncio.create_task(self._take_part())
        try:
            yield
        finally:
            membership.cancel()
            await asyncio.gather(membership, return_exceptions=True)
            await self.registration.leave()
            await self.registration.close()
            await asyncio.gather(self.sources.outcomes.close(), return_exceptions=True)
            await self.sources.telemetry.close()

    async def _take_part(self) -> None:
        """Register as soon as tasks can be taken, which is after the start, and stay registered."""
        deadline = self._settings.start_deadline_seconds
        try:
            await retry_until_deadline(self._listening, f"our own port {self._port}", deadline, interval=0.02)
            await self.registration.register(deadline)
        except DeadlineError as error:
            log.error("cannot start", error=str(error))  # noqa: TRY400  the text says it all
            signal.raise_signal(signal.SIGTERM)  # the server's own way to end; the process then ends by it
            return
        await self.registration.keep()

    async def _listening(self) -> None:
        _, writer = await asyncio.open_connection(self._settings.host, self._port)
        writer.close()
        await writer.wait_closed()

    async def _connect(self) -> Sources:
        chosen, deadline = self._settings, self._settings.start_deadline_seconds
        outcomes = OutcomeMemory(chosen.qdrant_url, chosen.qdrant_api_key, chosen.qdrant_collection)

        async def clickhouse() -> Telemetry:
            telemetry = await asyncio.to_thread(
                Telemetry.connect,
                chosen.clickhouse_url,
                chosen.clickhouse_user,
                chosen.clickhouse_password,
                chosen.clickhouse_database,
            )
            await telemetry.ping()
            return telemetry

        telemetry = await retry_until_deadline(clickhouse, f"ClickHouse at {chosen.clickhouse_url}", deadline)
        if self._kind.remembers:
            await retry_until_deadline(outcomes.ping, f"Qdrant at {chosen.qdrant_url}", deadline)
        return Sources(telemetry, outcomes)

    async def check_telemetry(self) -> None:
        """Raises when ClickHouse does not answer."""
        if self.sources is None:
            raise ConnectionError("not connected yet")
        await self.sources.telemetry.ping()

    async def check_outcomes(self) -> None:
        """Raises when Qdrant does not answer."""
        if self.sources is None:
            raise ConnectionError("not connected yet")
        await self.sources.outcomes.ping()


def create_agent(kind: AgentKind, settings: AgentSettings, port: int) -> tuple[FastAPI, AgentApp]:
    """The web application of an agent, and the agent behind it."""
    agent = AgentApp(kind, settings, port)
    app = create_app(
        kind.service,
        settings.version,
        lifespan=agent.lifespan,
        authenticate=agent.authenticate,
        long_calls=("POST /tasks",),  # the orchestrator's own deadline is for them
        checks={"clickhouse": agent.check_telemetry} | ({"qdrant": agent.check_outcomes} if kind.remembers else {}),
    )

    @app.post("/tasks")
    async def tasks(task: Task) -> AnalyzeAnswer | Validation | JudgeAnswer:
        return await agent.work(task)

    return app, agent


def run(kind: AgentKind, settings: AgentSettings, port: int) -> None:
    """Serve an agent until it is told to stop."""
    app, _ = create_agent(kind, settings, port)
    serve(app, settings.host, port)
