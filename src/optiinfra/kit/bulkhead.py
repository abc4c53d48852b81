"""Bulkheads: one customer's requests wait for each other, before they take connections that all customers share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

Admit = Callable[[HTTPConnection], AbstractAsyncContextManager[None]]
"""Holds a place for the authenticated caller's request."""


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
    """Has each authenticated HTTP request wait for its place; event streams, which last, need none."""

    def __init__(self, app: ASGIApp, admit: Admit) -> None:
        self.app, self._admit = app, admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or "principal" not in scope.get("state", {}):
            await self.app(scope, receive, send)
            return
        async with self._admit(HTTPConnection(scope)):
            await self.app(scope, receive, send)
