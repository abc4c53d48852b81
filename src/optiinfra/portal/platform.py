"""The platform as the portal sees it: the orchestrator's API, called with the user's own token."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import httpx
import structlog
from pydantic import TypeAdapter, ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from optiinfra.api.accounts import Identity, Login, Refresh, Tokens
from optiinfra.api.agents import Agent
from optiinfra.api.common import Wire
from optiinfra.api.customers import Infrastructure
from optiinfra.api.events import Event
from optiinfra.api.problems import kind_of
from optiinfra.api.recommendations import Approved, Optimization, Recommendation, Reject
from optiinfra.api.telemetry import MetricPoint, MetricType
from optiinfra.kit.problems import Problem

log = structlog.get_logger(__name__)

T = TypeVar("T")

_LIVE_PROTOCOL = "optiinfra.v1"


def unavailable(seen: str) -> Problem:
    """What the caller is told while the orchestrator is away."""
    return Problem(503, "platform_unavailable", f"The platform does not answer at the moment ({seen}).")


def unreadable(where: str, error: ValidationError) -> Problem:
    """What the caller is told of an answer that is not what the orchestrator's API promises; the log tells more."""
    log.error("unreadable answer", where=where, errors=error.errors(include_url=False, include_input=False))
    return Problem(502, "platform_unreadable", "The platform gave an answer that cannot be read.")


class _LastEvent(Wire):
    seq: int


class Platform:
    """Raises `Problem`: the orchestrator's own for what it refuses, 503 when it is away, 502 for nonsense."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ready(self) -> None:
        """Raises when the orchestrator does not answer."""
        (await self._http.get("/health")).raise_for_status()

    async def login(self, username: str, password: str) -> Tokens:
        """Sign in."""
        return await self._call("POST", "/auth/login", Tokens, body=Login(username=username, password=password))

    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchange a refresh token, which is used up by it."""
        return await self._call("POST", "/auth/refresh", Tokens, body=Refresh(refresh_token=refresh_token))

    async def logout(self, token: str) -> None:
        """End every sign-in of the user."""
        await self._call("POST", "/auth/logout", type(None), token)

    async def me(self, token: str) -> Identity:
        """Who the token belongs to."""
        return await self._call("GET", "/auth/me", Identity, token)

    async def infrastructure(self, token: str, customer_id: str) -> Infrastructure:
        """What the customer owns."""
        return await self._call("GET", f"/customers/{customer_id}/infrastructure", Infrastructure, token)

    async def recommendations(self, token: str, customer_id: str) -> list[Recommendation]:
        """Newest first."""
        return await self._call("GET", f"/customers/{customer_id}/recommendations", list[Recommendation], token)

    async def optimizations(self, token: str, customer_id: str) -> list[Optimization]:
        """Newest first."""
        return await self._call("GET", f"/customers/{customer_id}/optimizations", list[Optimization], token)

    async def optimization(self, token: str, optimization_id: str) -> Optimization:
        """One of them."""
        return await self._call("GET", f"/optimizations/{optimization_id}", Optimization, token)

    async def agents(self, token: str) -> list[Agent]:
        """The platform's agents."""
        return await self._call("GET", "/orchestrator/agents", list[Agent], token)

    async def metrics(self, token: str, customer_id: str, metric_type: MetricType) -> list[MetricPoint]:
        """The estate's series, oldest first."""
        path = f"/customers/{customer_id}/metrics?metric_type={metric_type}"
        return await self._call("GET", path, list[MetricPoint], token)

    async def last_event(self, token: str, customer_id: str) -> int:
        """The number of the customer's latest event, 0 before the first."""
        return (await self._call("GET", f"/customers/{customer_id}/events/latest", _LastEvent, token)).seq

    async def approve(self, token: str, recommendation_id: str) -> Approved:
        """Approve and start."""
        return await self._call("POST", f"/recommendations/{recommendation_id}/approve", Approved, token)

    async def reject(self, token: str, recommendation_id: str, reason: str) -> Recommendation:
        """Reject."""
        path = f"/recommendations/{recommendation_id}/reject"
        return await self._call("POST", path, Recommendation, token, Reject(reason=reason))

    async def events(
        self, token: str, customer_id: str, after: int, idle_seconds: float
    ) -> AsyncIterator[Event | None]:
        """Each event after number `after`, as it happens; None whenever nothing happened for `idle_seconds`.

        Ends when the orchestrator ends the connection.
        """
        base = self._http.base_url
        scheme = "wss" if base.scheme == "https" else "ws"
        url = base.copy_with(scheme=scheme, path=f"/ws/customers/{customer_id}", query=f"after={after}".encode())
        protocols: list[Any] = [_LIVE_PROTOCOL, f"bearer.{token}"]
        try:
            async with connect(str(url), subprotocols=protocols, proxy=None) as socket:
                while True:
                    try:
                        text = await asyncio.wait_for(socket.recv(), idle_seconds)
                    except TimeoutError:
                        yield None
                    else:
                        yield Event.model_validate_json(text)
        except ConnectionClosed:
            return
        except (OSError, WebSocketException) as error:
            raise unavailable(f"{type(error).__name__}: {error}") from error
        except ValidationError as error:
            raise unreadable("events", error) from error

    async def _call(
        self, method: str, path: str, shape: type[T], token: str | None = None, body: Any | None = None
    ) -> T:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        content = None
        if body is not None:
            content, headers["content-type"] = body.model_dump_json(), "application/json"
        try:
            response = await self._http.request(method, path, headers=headers, content=content)
        except httpx.HTTPError as error:
            raise unavailable(type(error).__name__) from error
        if response.status_code >= 500:
            raise unavailable(f"status {response.status_code}")
        if response.is_error:
            raise _refusal(response)
        try:
            return TypeAdapter(shape).validate_json(response.content or b"null")
        except ValidationError as error:
            raise unreadable(f"{method} {path}", error) from error


def _refusal(response: httpx.Response) -> Problem:
    """The orchestrator's problem as ours, or its status alone when it sent none."""
    try:
        told = response.json()
        kind, detail = kind_of(str(told["type"])), str(told["detail"])
    except (ValueError, KeyError, TypeError):
        kind, detail = "refused", f"the platform refused this with status {response.status_code}"
    return Problem(response.status_code, kind, detail)
