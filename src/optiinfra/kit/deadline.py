"""Answer 503 when a handler has not started its response before a deadline."""

import asyncio
import re
from collections.abc import Collection

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import RETRY_AFTER, problem_response
from optiinfra.kit.tasks import log_error

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
        takes_long = self._long.fullmatch(f"{scope['method']} {scope['path']}") is not None
        allowed = self.seconds + (LONG_CALL_SECONDS if takes_long else 0.0)
        task = asyncio.current_task()
        assert task is not None
        started = False
        refusal: asyncio.Future[None] | None = None

        async def observed_send(message: Message) -> None:
            nonlocal started
            if refusal is None:
                started = True
                await send(message)

        def expire() -> None:
            nonlocal refusal
            if not started:
                refusal = asyncio.ensure_future(_refuse(allowed, scope, receive, send))
                task.cancel()

        # The handler runs in this task: one of its own would take longer than many a handler does.
        timer = asyncio.get_running_loop().call_later(allowed, expire)
        try:
            await self.app(scope, receive, observed_send)
        except (Exception, asyncio.CancelledError) as error:
            if refusal is None or task.cancelling() > 1:  # the second to cancel is the server, as it shuts down
                raise
            log_error(error)
        finally:
            timer.cancel()
        if refusal is not None:
            task.uncancel()
            await refusal


async def _refuse(seconds: float, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once: the handler takes a while to end if it waits for the client of a store that hangs."""
    log.warning("request deadline exceeded", seconds=seconds)
    detail = f"no answer within {seconds:.0f} s; the request may have been carried out: check before you repeat it"
    await problem_response(503, "deadline", detail, headers=RETRY_AFTER)(scope, receive, send)
