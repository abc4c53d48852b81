"""Answer 503 when a handler has not started its response before a deadline."""

import asyncio
import re
from collections.abc import Collection

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import RETRY_AFTER, problem_response
from optiinfra.kit.tasks import cancel_in_background

log = structlog.get_logger(__name__)

LONG_CALL_SECONDS = 60.0
"""Additional time for requests that are known to take long."""


class DeadlineMiddleware:
    """Answers 503 and cancels the handler if its response has not started after `seconds`; the client may retry.

    `long_calls` are regular expressions for the requests (`GET /path`) that may take LONG_CALL_SECONDS longer.
    """

    def __init__(self, app: ASGIApp, seconds: float, long_calls: Collection[str] = ()) -> None:
        self.app, self.seconds = app, seconds
        self._long = re.compile("|".join(long_calls) or r"(?!)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, expired = asyncio.Event(), False

        async def observed_send(message: Message) -> None:
            if not expired:
                started.set()
                await send(message)

        # Not `first_completed`: the handler goes on once its response has started.
        handler = asyncio.ensure_future(self.app(scope, receive, observed_send))
        response_start = asyncio.ensure_future(started.wait())
        takes_long = self._long.fullmatch(f"{scope['method']} {scope['path']}") is not None
        allowed = self.seconds + (LONG_CALL_SECONDS if takes_long else 0.0)
        try:
            await asyncio.wait((handler, response_start), timeout=allowed, return_when=asyncio.FIRST_COMPLETED)
            if handler.done() or started.is_set():
                await handler
                return
        except asyncio.CancelledError:  # the server shuts down
            handler.cancel()
            raise
        finally:
            response_start.cancel()
        expired = True
        cancel_in_background(handler)
        log.warning("request deadline exceeded", seconds=allowed)
        detail = f"no answer within {allowed:.0f} s; the request may have been carried out: check before you repeat it"
        await problem_response(503, "deadline", detail, headers=RETRY_AFTER)(scope, receive, send)
