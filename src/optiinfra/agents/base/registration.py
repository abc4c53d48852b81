"""An agent's place in the orchestrator's registry: taken at start, kept by heartbeats, given back at the end."""

import asyncio
from collections.abc import Callable

import httpx
import structlog
from pydantic import ValidationError

from optiinfra.api.agents import Heartbeat, Register, Registered
from optiinfra.kit.retries import retry_until_deadline

log = structlog.get_logger(__name__)

FULL_LOAD_TASKS = 8
"""Tasks at once at which an agent calls itself fully loaded."""

_LEAVING_SECONDS = 0.8


class Registration:
    """One agent's registration. `agent_id` is empty until it is registered."""

    def __init__(
        self, client: httpx.AsyncClient, enrolment_secret: str, card: Register, current_tasks: Callable[[], int]
    ) -> None:
        self._http, self._enrolment_secret, self._card, self._current = client, enrolment_secret, card, current_tasks
        self._registered: Registered | None = None
        self._registering = asyncio.Lock()

    @property
    def agent_id(self) -> str:
        """The id under which the orchestrator knows this agent."""
        return self._registered.agent_id if self._registered else ""

    async def known_as(self) -> str:
        """The `agent_id`, once a registration that is under way is answered: its first task may come before."""
        async with self._registering:
            return self.agent_id

    async def register(self, deadline: float) -> None:
        """Register; raises DeadlineError when the orchestrator does not take us in so many seconds."""
        await retry_until_deadline(self._register, "the orchestrator's agent registry", deadline)
        log.info("registered", agent_id=self.agent_id)

    async def keep(self) -> None:
        """Send heartbeats for ever. One that fails is logged and tried again; a forgotten agent registers anew."""
        failing = False
        while self._registered is not None:
            await asyncio.sleep(self._registered.heartbeat_seconds)
            try:
                await self.beat()
            except (httpx.HTTPError, ValidationError) as error:
                if not failing:
                    log.warning("heartbeat failed", error=f"{type(error).__name__}: {error}")
                failing = True
            else:
                if failing:
                    log.info("heartbeats are taken again")
                failing = False

    async def beat(self) -> None:
        """One heartbeat, or a new registration where the orchestrator does not know us; httpx's errors if neither."""
        assert self._registered is not None
        current = self._current()
        body = Heartbeat(current_tasks=current, load=min(1.0, current / FULL_LOAD_TASKS))
        answer = await self._http.post(
            f"/orchestrator/agents/{self.agent_id}/heartbeat", content=body.model_dump_json(), headers=self._headers()
        )
        if answer.status_code in (401, 404):
            log.warning("the orchestrator does not know us any more; registering anew", agent_id=self.agent_id)
            await self._register()
            return
        answer.raise_for_status()

    async def leave(self) -> None:
        """Deregister, if the orchestrator is there to hear it."""
        if self._registered is None:
            return
        try:
            await self._http.delete(
                f"/orchestrator/agents/{self.agent_id}", headers=self._headers(), timeout=_LEAVING_SECONDS
            )
        except httpx.HTTPError as error:
            log.info("left without saying so", error=f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _register(self) -> None:
        async with self._registering:
            answer = await self._http.post(
                "/orchestrator/agents/register",
                content=self._card.model_dump_json(),
                headers=_bearer(self._enrolment_secret),
            )
            answer.raise_for_status()
            self._registered = Registered.model_validate_json(answer.content)

    def _headers(self) -> dict[str, str]:
        assert self._registered is not None
        return _bearer(self._registered.agent_secret)


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
