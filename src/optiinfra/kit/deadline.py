"""Every call has an answer in time: 503 where a store is away, or nothing came before the deadline."""

import asyncio
import re
from collections.abc import Collection
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import problem_response
from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

LONG_CALL_SECONDS = 60.0
"""How much longer a call may take that is known to take long."""
RETRY_AFTER = {"Retry-After": "2"}


class DeadlineMiddleware:
    """Answers in place of a handler that found a store away, or that has not begun to answer after `seconds`.

    Such a handler is not interrupted: half of what it does may be done, and the caller may ask again. `long_calls` are
    regular expressions for the calls (`GET /path`) that may take longer. A WebSocket is closed with 1013, try again
    later.
    """

    def __init__(self, app: ASGIApp, seconds: float, long_calls: Collection[str] = ()) -> None:
        self.app, self.seconds = app, seconds
        self._long = re.compile("|".join(long_calls) or r"(?!)")
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._stream(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, given_up = asyncio.Event(), False

        async def observed(message: Message) -> None:
            begun.set()
            if not given_up:
                await send(message)

        work = asyncio.ensure_future(self.app(scope, receive, observed))
        beginning = asyncio.ensure_future(begun.wait())
        takes_long = self._long.fullmatch(f"{scope['method']} {scope['path']}") is not None
        allowed = self.seconds + (LONG_CALL_SECONDS if takes_long else 0.0)
        try:
            await asyncio.wait((work, beginning), timeout=allowed, return_when=asyncio.FIRST_COMPLETED)
            if work.done() or begun.is_set():
                await work
                return
        except StoreUnavailable as error:
            if begun.is_set():
                raise
            log.warning("a store is away", error=str(error))
            response = problem_response(503, "store_unavailable", f"{error}; try again", headers=RETRY_AFTER)
            await response(scope, receive, send)
            return
        except asyncio.CancelledError:  # the server stops, or its connection is gone
            work.cancel()
            raise
        finally:
            beginning.cancel()
        given_up = True
        self._running.add(work)
        work.add_done_callback(self._ended)
        log.warning("no answer in time", seconds=allowed)
        detail = f"no answer within {allowed:.0f} s; what was asked for may still be done: look before you ask again"
        await problem_response(503, "deadline", detail, headers=RETRY_AFTER)(scope, receive, send)

    def _ended(self, work: "asyncio.Task[Any]") -> None:
        self._running.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            log.warning("a call that was given up has failed", error=f"{type(error).__name__}: {error}")

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except StoreUnavailable as error:
            log.warning("a store is away", error=str(error))
            await send({"type": "websocket.close", "code": 1013, "reason": "a store is away: try again later"})
