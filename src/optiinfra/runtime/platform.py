"""The platform's routes for runtimes. Away is not an error here: every call is tried until it is answered."""

import asyncio
import math
import random
import socket
import time
from typing import Any

import httpx
import structlog
from pydantic import TypeAdapter

from optiinfra.api.common import Wire
from optiinfra.api.runtimes import Command, CommandResult, Connect, Connected, InventoryAccepted, InventoryReport
from optiinfra.api.telemetry import TelemetryBatch
from optiinfra.kit import http

log = structlog.get_logger(__name__)

LONG_POLL_SECONDS = 20
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SEND_SECONDS = 300.0
"""How long the platform may fail at one batch of telemetry before it is given up: others wait behind it."""
_COMMANDS = TypeAdapter(list[Command])


class TokenRefusedError(Exception):
    """The customer's token is not, or no longer, valid."""


class RejectedError(Exception):
    """The platform will never accept this call, or has failed at it for too long; the text says why."""


class Platform:
    """One customer's connection. Each call may raise TokenRefusedError or RejectedError, and nothing else."""

    def __init__(
        self, url: str, customer_id: str, agent_token: str, version: str, *, client: httpx.AsyncClient | None = None
    ) -> None:
        self._http = client or http.client(url, timeout=LONG_POLL_SECONDS + 10.0)
        self._customer_id, self._token, self._version = customer_id, agent_token, version
        self._runtime, self._away = "", False

    async def connect(self) -> str:
        """Announce this runtime, and return the id that the platform gave it."""
        body = Connect(
            customer_id=self._customer_id,
            agent_token=self._token,
            hostname=socket.gethostname(),
            version=self._version,
        )
        answer = await self._call("POST", "/agent-runtime/connect", body)
        runtime_id = Connected.model_validate_json(answer.content).runtime_id
        self._runtime = f"/agent-runtime/{runtime_id}"
        return runtime_id

    async def report(self, inventory: InventoryReport) -> InventoryAccepted:
        """Hand in the inventory; returns what the platform made of it."""
        answer = await self._call("PUT", f"{self._runtime}/inventory", inventory)
        return InventoryAccepted.model_validate_json(answer.content)

    async def send(self, batch: TelemetryBatch, key: str) -> None:
        """Hand in telemetry; the same key is never counted twice."""
        await self._call("POST", f"{self._runtime}/telemetry", batch, key=key, patience=SEND_SECONDS)

    async def commands(self) -> list[Command]:
        """Wait for orders; empty when none came."""
        answer = await self._call("GET", f"{self._runtime}/commands", params={"wait": LONG_POLL_SECONDS})
        return _COMMANDS.validate_json(answer.content)

    async def answer(self, command: Command, result: CommandResult) -> None:
        """Say how an order ended."""
        path = f"{self._runtime}/commands/{command.command_id}/result"
        await self._call("POST", path, result, key=f"{command.command_id}:result")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        body: Wire | Any = None,
        *,
        key: str | None = None,
        params: Any = None,
        patience: float = math.inf,
    ) -> httpx.Response:
        """`patience` is for a platform that is there, but fails at this call: seconds."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        content, pause = None if body is None else body.model_dump_json(), FIRST_PAUSE
        failing_since = math.inf
        while True:
            try:
                answer = await self._http.request(method, path, content=content, headers=headers, params=params)
                seen = f"{answer.status_code} {answer.text[:200]}"
            except httpx.HTTPError as error:
                answer, seen = None, f"{type(error).__name__}: {error}"
            if answer is not None and answer.status_code < 500 and answer.status_code not in (408, 429):
                self._note(away=False, seen=seen)
                if answer.status_code == 401:
                    raise TokenRefusedError(f"{method} {path}: {seen}")
                if not answer.is_success:
                    raise RejectedError(f"{method} {path}: {seen}")
                return answer
            self._note(away=True, seen=seen)
            failed = answer is not None and answer.status_code >= 500
            failing_since = min(failing_since, time.monotonic()) if failed else math.inf
            if time.monotonic() - failing_since > patience:
                raise RejectedError(f"{method} {path}: failed for {patience:.0f} s; last seen: {seen}")
            # Spread out, or every customer of this process would knock at the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)

    def _note(self, *, away: bool, seen: str) -> None:
        if away != self._away:
            self._away = away
            if away:
                log.warning("platform away", customer_id=self._customer_id, seen=seen)
            else:
                log.info("platform back", customer_id=self._customer_id)
