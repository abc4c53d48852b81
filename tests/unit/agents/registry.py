"""The orchestrator's agent registry, in memory."""

import asyncio
from functools import cache

import httpx

from optiinfra.kit.task_requests import TaskSigner

ENROLMENT_SECRET = "enrolment-secret-of-the-unit-tests-long-enough"


class FakeRegistry:
    """Registers agents as `agent_1`, `agent_2`, each with a secret of its own that later calls must carry.

    Setting `known_secret` to "" forgets the agent, `away` refuses connections, `nonsense` gives unreadable answers, and
    clearing `answering` delays them. `called` is released at each call, and `calls` lists them.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.called = asyncio.Semaphore(0)
        self.answering = asyncio.Event()
        self.answering.set()
        self.known_secret, self.away, self.nonsense, self.count = "", False, False, 0
        self.heartbeat_seconds = 60.0
        self.signer = TaskSigner("task-signing-key-of-the-unit-tests-long-enough")
        self.presented: list[str | None] = []
        """The secrets with which agents claimed their address, by registration."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.path}")
        self.called.release()
        await self.answering.wait()
        if self.away:
            raise httpx.ConnectError("refused")
        given = request.headers["authorization"].removeprefix("Bearer ")
        if request.url.path.endswith("/register"):
            return self._register(given, request.headers.get("agent-secret"))
        if given != self.known_secret:
            return httpx.Response(401, json={})
        accepted = {"ok": True, "task_key": self.signer.public_key}
        return httpx.Response(204 if request.method == "DELETE" else 200, json=accepted)

    def _register(self, given: str, presented: str | None) -> httpx.Response:
        if given != ENROLMENT_SECRET:
            return httpx.Response(401, json={})
        if self.nonsense:
            return httpx.Response(201, json={})
        self.presented.append(presented)
        self.count += 1
        self.known_secret = f"secret-{self.count}"
        body = {
            "agent_id": f"agent_{self.count}",
            "agent_secret": self.known_secret,
            "task_key": self.signer.public_key,
        }
        return httpx.Response(201, json=body | {"heartbeat_seconds": self.heartbeat_seconds})

    @cache  # noqa: B019  one client for the life of the registry
    def client(self) -> httpx.AsyncClient:
        """The client that an agent calls it with."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self), base_url="http://orchestrator")
