"""The platform's routes for runtimes. While the platform is unavailable, calls are retried."""

import math
import secrets
import socket
import time
from collections.abc import Collection
from typing import Any

import httpx
import structlog
from pydantic import TypeAdapter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from optiinfra.api.common import Wire
from optiinfra.api.runtimes import Command, CommandResult, Connect, Connected, InventoryAccepted, InventoryReport
from optiinfra.api.telemetry import TelemetryBatch
from optiinfra.kit import http

log = structlog.get_logger(__name__)

LONG_POLL_SECONDS = 20
SHORTEST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0
SEND_SECONDS = 300.0
"""How long the platform may answer one batch of telemetry with errors before the batch is discarded."""
_COMMANDS = TypeAdapter(list[Command])


class TokenRefusedError(Exception):
    """The customer's token is unknown, expired or revoked."""


class RejectedError(Exception):
    """The platform will not accept this call, or answered it with errors for too long; the text says why."""


class UnknownDeploymentsError(RejectedError):
    """The platform has none of these deployments, or no longer; by our inventory, they are gone."""

    def __init__(self, text: str, deployment_ids: Collection[str]) -> None:
        super().__init__(text)
        self.deployment_ids = frozenset(deployment_ids)


class Platform:
    """One customer's connection. Calls raise TokenRefusedError or RejectedError, and no other errors."""

    def __init__(
        self, url: str, customer_id: str, agent_token: str, version: str, *, client: httpx.AsyncClient | None = None
    ) -> None:
        self._http = client or http.client(url, timeout=LONG_POLL_SECONDS + 10.0)
        self._customer_id, self._token, self._version = customer_id, agent_token, version
        self._runtime, self._available = "", True

    async def connect(self) -> str:
        """Connect this runtime; returns the id that the platform gave it."""
        body = Connect(
            customer_id=self._customer_id,
            agent_token=self._token,
            hostname=socket.gethostname(),
            version=self._version,
        )
        answer = await self._call("POST", "/agent-runtime/connect", body, key=_new_key())
        runtime_id = Connected.model_validate_json(answer.content).runtime_id
        self._runtime = f"/agent-runtime/{runtime_id}"
        return runtime_id

    async def report(self, inventory: InventoryReport) -> InventoryAccepted:
        """Report the inventory; the platform's answer."""
        answer = await self._call("PUT", f"{self._runtime}/inventory", inventory)
        return InventoryAccepted.model_validate_json(answer.content)

    async def send(self, batch: TelemetryBatch, key: str) -> None:
        """Send telemetry; a batch that is sent again under its key is counted once."""
        await self._call("POST", f"{self._runtime}/telemetry", batch, key=key, give_up_seconds=SEND_SECONDS)

    async def commands(self) -> list[Command]:
        """The pending commands; waits for one by long polling, and is empty if none was issued."""
        answer = await self._call("GET", f"{self._runtime}/commands", params={"wait": LONG_POLL_SECONDS})
        return _COMMANDS.validate_json(answer.content)

    async def acknowledge(self, command: Command, result: CommandResult) -> None:
        """Report the result of a command."""
        path = f"{self._runtime}/commands/{command.command_id}/result"
        await self._call("POST", path, result, key=_new_key())

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
        give_up_seconds: float = math.inf,
    ) -> httpx.Response:
        """Call with retries. After `give_up_seconds` of server errors alone the call is rejected."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        content = None if body is None else body.model_dump_json()

        async def attempt() -> httpx.Response:
            try:
                response = await self._http.request(method, path, content=content, headers=headers, params=params)
            except httpx.HTTPError as error:
                raise _UnavailableError(f"{type(error).__name__}: {error}", server_error=False) from error
            outcome = f"{response.status_code} {response.text[:200]}"
            if response.status_code >= 500 or response.status_code in (408, 429):
                raise _UnavailableError(outcome, server_error=response.status_code >= 500)
            self._log_availability(available=True, outcome=outcome)
            if response.status_code == 401:
                raise TokenRefusedError(f"{method} {path}: {outcome}")
            if not response.is_success:
                raise _rejected(f"{method} {path}: {outcome}", response)
            return response

        # Random pauses, so that the connections of many customers do not retry at the same moment.
        policy = AsyncRetrying(
            retry=retry_if_exception_type(_UnavailableError),
            wait=wait_random_exponential(multiplier=SHORTEST_BACKOFF, max=LONGEST_BACKOFF),
            stop=_StopAfterServerErrors(give_up_seconds),
            after=self._log_unavailable,
            reraise=True,
        )
        try:
            return await policy(attempt)
        except _UnavailableError as error:
            raise RejectedError(f"{method} {path}: failed for {give_up_seconds:.0f} s; last answer: {error}") from error

    def _log_unavailable(self, state: RetryCallState) -> None:
        self._log_availability(available=False, outcome=str(_error_of(state)))

    def _log_availability(self, *, available: bool, outcome: str) -> None:
        if available == self._available:
            return
        self._available = available
        if available:
            log.info("platform available again", customer_id=self._customer_id)
        else:
            log.warning("platform unavailable", customer_id=self._customer_id, outcome=outcome)


class _UnavailableError(Exception):
    """One attempt got no response, a server error, or the request to try later."""

    def __init__(self, outcome: str, *, server_error: bool) -> None:
        super().__init__(outcome)
        self.server_error = server_error


class _StopAfterServerErrors:
    """Stops one call's retries when all attempts during `seconds` got server errors."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._since = seconds, math.inf

    def __call__(self, retry_state: RetryCallState) -> bool:
        error, present = _error_of(retry_state), time.monotonic()
        server_error = isinstance(error, _UnavailableError) and error.server_error
        self._since = min(self._since, present) if server_error else math.inf
        return present - self._since > self._seconds


def _new_key() -> str:
    """An idempotency key for one call and its retries. A command that is executed again has another result."""
    return secrets.token_hex(16)


def _rejected(text: str, response: httpx.Response) -> RejectedError:
    try:
        deployment_ids = response.json()["deployment_ids"] if response.status_code == httpx.codes.NOT_FOUND else []
    except (ValueError, TypeError, KeyError):
        deployment_ids = []
    return UnknownDeploymentsError(text, deployment_ids) if deployment_ids else RejectedError(text)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
