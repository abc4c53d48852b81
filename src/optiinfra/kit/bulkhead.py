"""Bulkheads: one caller's requests wait for each other, before they take what all callers share."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Admit = Callable[[HTTPConnection], AbstractAsyncContextManager[None]]
"""Holds a place for a request."""


class Bulkhead:
    """At most `most` at once for each key, in this process; the others wait in order."""

    def __init__(self, most: int) -> None:
        self._most = most
        # A key is forgotten when nobody holds or waits for one of its places.
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[None]:
        """Hold one of the key's places."""
        places = self._places.get(key)
        if places is None:
            places = self._places[key] = asyncio.Semaphore(self._most)
        async with places:
            yield


class BulkheadMiddleware:
    """Has each request wait for its place. An event stream gives it back once it is open.

    `long_calls` are regular expressions for the requests (`GET /path`) that need no place, because they would keep it.
    """

    def __init__(self, app: ASGIApp, admit: Admit, long_calls: Collection[str] = ()) -> None:
        self.app, self._admit = app, admit
        self._long = re.compile("|".join(long_calls) or r"(?!)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket") or self._long.fullmatch(
            f"{scope.get('method', 'WS')} {scope['path']}"
        ):
            await self.app(scope, receive, send)
            return
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._admit(HTTPConnection(scope)))

            async def observed_send(message: Message) -> None:
                if message["type"] == "websocket.accept":
                    await held.aclose()
                await send(message)

            await self.app(scope, receive, observed_send)
