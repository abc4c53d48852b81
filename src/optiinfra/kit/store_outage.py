"""Answer 503 when a request fails because a store is unavailable."""

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.api.problems import STORE_UNAVAILABLE, kind_of
from optiinfra.kit.problems import RETRY_AFTER, problem_response
from optiinfra.stores.errors import StoreUnavailable

log = structlog.get_logger(__name__)


class StoreOutageMiddleware:
    """Answers 503 with the store's name when a handler raises StoreUnavailable before its response has started.

    A WebSocket handler closes its connection itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def observed_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, observed_send)
        except StoreUnavailable as error:
            if started:
                raise
            log.warning("request failed, store unavailable", error=str(error))
            detail = f"{error}; try again"
            response = problem_response(503, kind_of(STORE_UNAVAILABLE), detail, headers=RETRY_AFTER)
            await response(scope, receive, send)
