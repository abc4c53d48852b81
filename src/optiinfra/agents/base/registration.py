"""An agent's entry in the orchestrator's registry: registered at start, kept by heartbeats, deregistered at the end."""

import asyncio
from collections.abc import Callable

import httpx
import structlog
from pydantic import ValidationError

from optiinfra.api.agents import FULL_LOAD_TASKS, Heartbeat, HeartbeatAccepted, Register, Registered
from optiinfra.kit.retries import retry_until_deadline

log = structlog.get_logger(__name__)

_DEREGISTER_SECONDS = 0.8


class Registration:
    """One agent's registration. `agent_id` is empty until the agent is registered."""

    def __init__(
        self, client: httpx.AsyncClient, enrolment_secret: str, body: Register, in_progress: Callable[[], int]
    ) -> None:
        self._http, self._enrolment_secret, self._body, self._in_progress = client, enrolment_secret, body, in_progress
        self._registered: Registered | None = None
        self._registering = asyncio.Lock()

    @property
    def agent_id(self) -> str:
        """The id under which the orchestrator knows this agent."""
        return self._registered.agent_id if self._registered else ""

    async def current(self) -> Registered | None:
        """The registration after any that is in progress, because a task may arrive before its answer."""
        async with self._registering:
            return self._registered

    async def register(self, deadline: float) -> None:
        """Register; raises DeadlineError when the orchestrator does not accept within `deadline` seconds."""
        await retry_until_deadline(self._register, "the orchestrator's agent registry", deadline)
        log.info("agent registered", agent_id=self.agent_id)

    async def send_heartbeats(self) -> None:
        """Send heartbeats until cancelled. A failure is logged and retried; an unknown agent registers again."""
        failing = False
        while self._registered is not None:
            await asyncio.sleep(self._registered.heartbeat_seconds)
            try:
                await self.heartbeat()
            except (httpx.HTTPError, ValidationError) as error:
                if not failing:
                    log.warning("heartbeat failed", error=f"{type(error).__name__}: {error}")
                failing = True
            else:
                if failing:
                    log.info("heartbeat recovered")
                failing = False

    async def heartbeat(self) -> None:
        """Send one heartbeat, or register again if the agent is unknown; raises httpx's errors if neither succeeds."""
        assert self._registered is not None
        current = self._in_progress()
        body = Heartbeat(current_tasks=current, load=min(1.0, current / FULL_LOAD_TASKS))
        answer = await self._http.post(
            f"/orchestrator/agents/{self.agent_id}/heartbeat", content=body.model_dump_json(), headers=self._headers()
        )
        if answer.status_code in (401, 404):
            log.warning("agent unknown to the orchestrator, registering again", agent_id=self.agent_id)
            await self._register()
            return
        answer.raise_for_status()
        accepted = HeartbeatAccepted.model_validate_json(answer.content)
        self._registered = self._registered.model_copy(update={"task_key": accepted.task_key})

    async def deregister(self) -> None:
        """Deregister; an unavailable orchestrator detects it from missing heartbeats."""
        if self._registered is None:
            return
        try:
            await self._http.delete(
                f"/orchestrator/agents/{self.agent_id}", headers=self._headers(), timeout=_DEREGISTER_SECONDS
            )
        except httpx.HTTPError as error:
            log.info("deregistration failed", error=f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _register(self) -> None:
        async with self._registering:
            answer = await self._http.post(
                "/orchestrator/agents/register",
                content=self._body.model_dump_json(),
                headers=_bearer(self._enrolment_secret) | self._own_secret(),
            )
            answer.raise_for_status()
            self._registered = Registered.model_validate_json(answer.content)

    def _own_secret(self) -> dict[str, str]:
        """Proves that a live registration with our address is our own."""
        return {"Agent-Secret": self._registered.agent_secret} if self._registered else {}

    def _headers(self) -> dict[str, str]:
        assert self._registered is not None
        return _bearer(self._registered.agent_secret)


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
