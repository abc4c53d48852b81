"""Scripted agents: small HTTP servers that register themselves, and answer tasks as a test says."""

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt

from fixtures.trust import AUTHORITIES
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.task_requests import verify
from testbed.waiting import stretched, wait_until
from tests.helpers.callers import bearer
from tests.helpers.private_platform import PrivatePlatform, private_platform_over

POOL = "scripted"
"""The pool to which a platform for scripted agents sends its tasks."""

Task = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """An HTTP response of an agent."""

    status: int = 200
    body: bytes = b""


Script = Callable[[Task], Mapping[str, Any] | Reply]
"""Answers a task: by an object that is sent as JSON, or by any response."""

NewAgent = Callable[..., "ScriptedAgent"]
"""Registers an agent; the arguments are those of `ScriptedAgent` after the environment."""


class ScriptedAgent:
    """An agent that is registered by `register`, and sends a heartbeat only when it is told to.

    `tasks` are those that it was given, in order, `tokens` what they were signed with. While `answering` is cleared, it
    holds its answers back.
    """

    def __init__(
        self,
        environment: Mapping[str, Any],
        agent_type: AgentType,
        script: Script,
        *,
        capabilities: Sequence[str] = ("analyze", "judge", "validate"),
        pool: str = POOL,
    ) -> None:
        self.script, self.tasks, self.answering = script, list[Task](), threading.Event()
        self.tokens = list[str]()
        self.answering.set()
        self.in_progress, self._lock = 0, threading.Lock()
        self._state, self._registered, self._sending = dict[str, Any](), False, threading.Lock()
        self._connections, self._killed = set[socket.socket](), False
        self._enrolment_secret = environment["credentials"]["enrolment_secret"]
        self._server = _Server((environment["host_address"], 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        url = environment["urls"]["orchestrator"]
        self.http = httpx.Client(base_url=url, timeout=stretched(15), verify=AUTHORITIES)
        self.body: dict[str, Any] = {
            "agent_type": agent_type,
            "version": f"scripted {uuid.uuid4().hex[:8]}",
            "capabilities": list(capabilities),
            "hostname": f"host-{uuid.uuid4().hex[:8]}",
            "base_url": f"http://{environment['host_address']}:{self._server.server_port}",
            "pool": pool,
        }
        self.agent_id = self.secret = self._task_key = ""

    def register(self, **changes: Any) -> dict[str, Any]:
        """Register, or register again, with these changes; returns the orchestrator's answer."""
        self.body |= changes
        with self._sending:
            answer = self.try_register(self.secret)
            assert answer.status_code == 201, answer.text
            registered: dict[str, Any] = answer.json()
            self.agent_id, self.secret = registered["agent_id"], registered["agent_secret"]
            self._task_key = registered["task_key"]
            self._state, self._registered = {}, True
        return registered

    def try_register(self, secret: str | None = None, **changes: Any) -> httpx.Response:
        """The response to a registration with these changes; `secret` is to prove that the address is its own."""
        headers = bearer(self._enrolment_secret) | ({"Agent-Secret": secret} if secret else {})
        return self.http.post("/orchestrator/agents/register", json=self.body | changes, headers=headers)

    def heartbeat(self, **body: Any) -> None:
        """Send a heartbeat, of an agent without tasks unless the body differs; `keep_alive` repeats it."""
        with self._sending:
            self._state = body
            answer = self.try_heartbeat(**body)
        assert answer.status_code == 200, answer.text

    def try_heartbeat(self, *, token: str | None = None, agent_id: str | None = None, **body: Any) -> httpx.Response:
        """The response to a heartbeat, which may be invalid, of another agent, or with another credential."""
        path = f"/orchestrator/agents/{agent_id or self.agent_id}/heartbeat"
        sent = {"status": "active", "current_tasks": 0, "load": 0.0} | body
        headers = bearer(token or self.secret) | {"Content-Type": "application/json"}
        return self.http.post(path, content=json.dumps(sent), headers=headers)  # httpx's own JSON cannot have NaN

    @contextmanager
    def keep_alive(self, seconds: float) -> Iterator[None]:
        """Repeat the last heartbeat every so many seconds inside the context, while the agent is registered."""
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(seconds):
                with self._sending:
                    if self._registered:
                        self.try_heartbeat(**self._state)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()

    def deregister(self) -> httpx.Response:
        """The response to its deregistration."""
        with self._sending:
            self._registered = False
            return self.http.delete(f"/orchestrator/agents/{self.agent_id}", headers=bearer(self.secret))

    def given(self, kind: str) -> list[Task]:
        """The tasks of one kind that it was given."""
        return [task for task in self.tasks if task["kind"] == kind]

    def wait_for_tasks(self, count: int) -> list[Task]:
        """Its tasks, once there are that many."""
        return wait_until(
            lambda: list(self.tasks), f"{count} tasks", 15, accept=lambda tasks: len(tasks) >= count, poll=0.01
        )

    @contextmanager
    def holding(self, at_most: float | None = None) -> Iterator[None]:
        """Hold answers back inside the context, but no longer than so many seconds."""
        self.answering.clear()
        release = threading.Timer(at_most or stretched(60), self.answering.set)
        release.start()
        try:
            yield
        finally:
            release.cancel()
            self.answering.set()

    def kill(self) -> None:
        """Close its port and all connections without an answer, as the kernel does for a killed process."""
        self._killed = True
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.answering.set()

    def close(self) -> None:
        """Deregister and stop."""
        with suppress(httpx.HTTPError):  # the platform may have ended
            self.deregister()
        self.kill()
        self.http.close()

    def answer(self, token: str, body: bytes) -> Reply | None:
        """The response to a task, None if it was killed. Only the orchestrator's token for this agent is accepted."""
        try:
            claims = verify(token, self._task_key, self.agent_id)
        except jwt.InvalidTokenError:
            return Reply(401)
        task: Task = json.loads(body)
        if not claims.covers(body) or claims.task_id != task["task_id"]:
            return Reply(401)
        with self._lock:
            self.tokens.append(token)
            self.tasks.append(task)
            self.in_progress += 1
        try:
            self.answering.wait()
        finally:
            with self._lock:
                self.in_progress -= 1
        if self._killed:
            return None
        scripted = self.script(task)
        return scripted if isinstance(scripted, Reply) else Reply(body=json.dumps(scripted).encode())

    @contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        """Remember a connection while it is open, to close it when the agent is killed."""
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is part of the script."""


def _handler_of(agent: ScriptedAgent) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/tasks", self.path
            token = self.headers["Authorization"].removeprefix("Bearer ")
            with agent.connected(self.connection):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if (reply := agent.answer(token, body)) is None:
                    return
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Log nothing."""

    return Handler


def found_nothing(summary: str) -> Script:
    """An analysis without recommendations; the summary tells who made it."""
    return lambda _task: {"drafts": [], "summary": summary}


def draft(title: str, /, **changes: Any) -> dict[str, Any]:
    """A recommendation as an agent sends it, by default advice that touches no resource."""
    return {
        "type": "region_advice",
        "title": title,
        "explanation": "prices differ between regions",
        "risk_level": "low",
        "confidence": 0.8,
        "estimated_savings": 0.0,
        "predicted": {"monthly_cost": 0.0, "p95_latency_ms": None, "quality_score": None},
        "affected_resources": [],
        "deployment_id": None,
        "parameters": {},
        "modelled": {},
        "features": [],
        "similar_outcomes": [],
    } | changes


def recommends(summary: str, /, **changes: Any) -> Script:
    """An analysis with one recommendation, whose title is the summary."""
    return lambda _task: {"drafts": [draft(summary, **changes)], "summary": summary}


def approves(agent_type: AgentType, reason: str = "nothing against it") -> Script:
    """A validation that approves."""
    return lambda _task: {"agent_type": agent_type, "approved": True, "reason": reason}


@contextmanager
def platform_for_scripted_agents(
    environment: Mapping[str, Any], name: str, **changed: str
) -> Iterator[PrivatePlatform]:
    """A private platform without agents of its own, which sends its tasks to `POOL`; with these changed settings."""
    settings = {"AGENT_POOL": POOL, "AGENT_WAIT_SECONDS": "1"} | changed
    with private_platform_over(
        environment, f"{name}-{os.getpid()}", settings, proxied=("redis",), agents=False
    ) as platform:
        yield platform


@contextmanager
def scripted_agents(platform: PrivatePlatform, heartbeat_seconds: float | None = None) -> Iterator[NewAgent]:
    """Registers scripted agents, and removes them afterwards.

    With `heartbeat_seconds`, those that are not `silent` send heartbeats that often.
    """
    with ExitStack() as agents:

        def new_agent(agent_type: AgentType, script: Script, *, silent: bool = False, **options: Any) -> ScriptedAgent:
            agent = ScriptedAgent(platform.document, agent_type, script, **options)
            agents.callback(agent.close)
            agent.register()
            if heartbeat_seconds is not None and not silent:
                agents.enter_context(agent.keep_alive(heartbeat_seconds))
            return agent

        yield new_agent
