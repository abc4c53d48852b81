"""The orchestrator's API as the portal uses it: called with the signed-in user's token."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import TypeVar

import httpx
import structlog
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from optiinfra.api.calls import Call
from optiinfra.api.client import ApiError, AsyncApiClient, InvalidResponseError
from optiinfra.api.common import PORTAL_CLIENT_HEADER, PORTAL_SECRET_HEADER
from optiinfra.api.events import SUBPROTOCOL, Event, bearer_subprotocol
from optiinfra.kit.problems import Problem

log = structlog.get_logger(__name__)

T = TypeVar("T")

CLIENT_ADDRESS: ContextVar[str | None] = ContextVar("client_address", default=None)
"""The address of the user for whom the portal calls, set for each request."""


class Platform:
    """Raises `Problem`: the orchestrator's for what it refuses, 503 if it is unavailable, 502 for invalid responses."""

    def __init__(self, http: httpx.AsyncClient, secret: str) -> None:
        self._http, self._client, self._secret = http, AsyncApiClient(http), secret

    async def ready(self) -> None:
        """Raises if the orchestrator does not answer."""
        (await self._http.get("/health")).raise_for_status()

    async def send(self, call: Call[T], token: str | None = None, *, key: str = "") -> T:
        """The response to a call of `api.calls`, sent with the user's token; the user's address is forwarded.

        A change with an idempotency key is made once, however often it is sent.
        """
        address = CLIENT_ADDRESS.get()
        headers = {PORTAL_SECRET_HEADER: self._secret, PORTAL_CLIENT_HEADER: address} if address else {}
        if key:
            headers["idempotency-key"] = key
        try:
            return await self._client.send(call, token, headers)
        except httpx.HTTPError as error:
            raise _unavailable(type(error).__name__) from error
        except ApiError as error:
            if error.status >= 500:
                raise _unavailable(f"status {error.status}") from error
            raise Problem(error.status, error.kind or "refused", error.detail) from error
        except InvalidResponseError as error:
            raise _invalid_response(str(call), error.__cause__) from error

    async def events(
        self, token: str, customer_id: str, after: int, idle_seconds: float
    ) -> AsyncIterator[Event | None]:
        """Each event after number `after` as it happens; None whenever there was none for `idle_seconds`.

        Ends when the orchestrator closes the connection.
        """
        base = self._http.base_url
        scheme = "wss" if base.scheme == "https" else "ws"
        url = base.copy_with(scheme=scheme, path=f"/ws/customers/{customer_id}", query=f"after={after}".encode())
        subprotocols = [Subprotocol(SUBPROTOCOL), Subprotocol(bearer_subprotocol(token))]
        try:
            async with connect(str(url), subprotocols=subprotocols, proxy=None) as socket:
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
            raise _unavailable(f"{type(error).__name__}: {error}") from error
        except ValidationError as error:
            raise _invalid_response("events", error) from error


def _unavailable(reason: str) -> Problem:
    return Problem(503, "platform_unavailable", f"The platform does not answer at the moment ({reason}).")


def _invalid_response(call: str, cause: BaseException | None) -> Problem:
    """The log names the invalid fields, without their values; the user sees only that the response is invalid."""
    errors = cause.errors(include_url=False, include_input=False) if isinstance(cause, ValidationError) else []
    log.error("orchestrator response invalid", call=call, errors=errors)
    return Problem(502, "platform_response_invalid", "The platform gave a response that cannot be read.")
