"""Authentication as middleware: every route needs a credential unless it is listed as public."""

import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from optiinfra.kit.problems import problem_response

PUBLIC_ROUTES = frozenset({"/health", "/ready", "/metrics", "/openapi.json"})
_NO_CREDENTIAL = "no valid credential: send `Authorization: Bearer TOKEN`, with a token that is not expired or revoked"


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller.

    A user has `customer_id`, `role` and `session_id`, an API key `customer_id` and `role`, a runtime `customer_id`.
    `expires_at` is the end of a user's access token, in seconds since the epoch.
    """

    kind: Literal["user", "api_key", "agent", "enrolment", "runtime", "admin", "orchestrator"]
    subject: str
    customer_id: str | None = None
    role: str | None = None
    session_id: str | None = None
    expires_at: float = math.inf


Authenticate = Callable[[HTTPConnection], Awaitable[Principal | None]]


def bearer(connection: HTTPConnection) -> str | None:
    """The bearer token of a request, or of a WebSocket's offered subprotocols (`bearer.<token>`)."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" and connection.scope["type"] == "websocket":
        subprotocols: list[str] = connection.scope.get("subprotocols", [])
        token = next((each.removeprefix("bearer.") for each in subprotocols if each.startswith("bearer.")), "")
    elif scheme.lower() != "bearer":
        return None
    return token if token and token.isascii() else None


class AuthenticationMiddleware:
    """Rejects a request without a valid credential before any other code sees it."""

    def __init__(self, app: ASGIApp, authenticate: Authenticate, public: Collection[str]) -> None:
        self.app, self.authenticate, self.public = app, authenticate, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in self.public:
            await self.app(scope, receive, send)
            return
        principal = await self.authenticate(HTTPConnection(scope))
        if principal is not None:
            scope.setdefault("state", {})["principal"] = principal
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401, "reason": "no valid credential"})
        else:
            response = problem_response(401, "unauthenticated", _NO_CREDENTIAL, headers={"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)


def current_principal(connection: HTTPConnection) -> Principal:
    """The caller, as authenticated by the middleware."""
    principal: Principal = connection.state.principal
    return principal


async def _current_principal(connection: HTTPConnection) -> Principal:
    return current_principal(connection)  # FastAPI would run a synchronous dependency in a thread


CurrentPrincipal = Annotated[Principal, Depends(_current_principal)]
