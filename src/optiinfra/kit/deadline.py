"""Every call has an answer in time: 503 where a store is away, or nothing came before the deadline."""

import asyncio
import re
from collections.abc import Collection

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import problem_response
from optiinfra.kit.tasks import cancel_in_background
from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)

LONG_CALL_SECONDS = 60.0
"""How much longer a call may take that is known to take long."""
RETRY_AFTER = {"Retry-After": "2"}


class DeadlineMiddleware:
    """Answers in place of a handler that found a store away, or that has not begun to answer after `seconds`.

    Such a handler is cancelled: its caller asks again. `long_calls` are regular expressions for the calls (`GET /path`)
    that may take longer.
    """

    def __init__(self, app: ASGIApp, seconds: float, long_calls: Collection[str] = ()) -> None:
        self.app, self.seconds = app, seconds
        self._long = re.compile("|".join(long_calls) or r"(?!)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, given_up = asyncio.Event(), False

        async def observed(message: Message) -> None:
            if not given_up:
                begun.set()
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
            await _unavailable("store_unavailable", f"{error}; try again")(scope, receive, send)
            return
        except asyncio.CancelledError:  # the server ends
            work.cancel()
            raise
        finally:
            beginning.cancel()
        given_up = True
        cancel_in_background(work)
        log.warning("no answer in time", seconds=allowed)
        detail = f"no answer within {allowed:.0f} s; what was asked for may have been done: look before you ask again"
        await _unavailable("deadline", detail)(scope, receive, send)


def _unavailable(kind: str, detail: str) -> Response:
    return problem_response(503, kind, detail, headers=RETRY_AFTER)
