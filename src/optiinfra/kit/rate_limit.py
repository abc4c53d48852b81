"""Answer 429 to authenticated callers that send too many requests."""

from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from optiinfra.kit.problems import problem_response

SecondsToWait = Callable[[HTTPConnection], Awaitable[int | None]]
"""How long the authenticated caller has to wait before a request; None if not at all."""


class RateLimitMiddleware:
    """Refuses requests that come too early; the middleware before it has authenticated the caller."""

    def __init__(self, app: ASGIApp, seconds_to_wait: SecondsToWait) -> None:
        self.app, self._seconds_to_wait = app, seconds_to_wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        seconds = None
        if scope["type"] in ("http", "websocket") and "principal" in scope.get("state", {}):
            seconds = await self._seconds_to_wait(HTTPConnection(scope))
        if seconds is None:
            await self.app(scope, receive, send)
            return
        detail = f"too many requests: try again in {seconds} s"
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4429, "reason": detail})
            return
        headers = {"Retry-After": str(seconds)}
        await problem_response(429, "rate_limited", detail, headers=headers)(scope, receive, send)
