"""Limits of request bodies: what exceeds them is refused before it is parsed, and before it fills the memory."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import problem_response

PUBLIC_BYTES = 16 * 2**10
"""For callers without a credential."""
ORDINARY_BYTES = 64 * 2**10
LARGE_BYTES = 16 * 2**20
"""For the requests that need it: the largest allowed telemetry batch takes half of it."""
MAX_VALUES = 400_000
"""Lists, objects and their elements: millions of empty lists fit into a large body, and take seconds to parse."""


class BodyLimitMiddleware:
    """Refuses a body whose Content-Length is too large, and stops reading one that grows beyond a limit.

    `public` are paths that need no credential, `large` regular expressions for the requests (`POST /path`) with large
    bodies.
    """

    def __init__(
        self, app: ASGIApp, public: Collection[str] = (), large: Collection[str] = (), most_values: int = MAX_VALUES
    ) -> None:
        self.app, self._public, self._most_values = app, frozenset(public), most_values
        self._large = re.compile("|".join(large) or r"(?!)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self._most_bytes(scope)
        detail = f"the body of this request may have at most {most:,} bytes"
        # uvicorn has checked that it is a number.
        if int(Headers(scope=scope).get("content-length", 0)) > most:
            await problem_response(413, "too_large", detail)(scope, receive, send)
            return
        read = values = 0

        async def counted() -> Message:
            nonlocal read, values
            message = await receive()
            body = message.get("body", b"")
            read += len(body)
            if read > most:
                raise HTTPException(413, detail)
            values += len(body) - len(body.translate(None, b",[{"))
            if values > self._most_values:
                most_values = f"{self._most_values:,} lists, objects and elements"
                raise HTTPException(413, f"a request body may have at most {most_values}")
            return message

        await self.app(scope, counted, send)

    def _most_bytes(self, scope: Scope) -> int:
        if scope["path"] in self._public:
            return PUBLIC_BYTES
        return LARGE_BYTES if self._large.fullmatch(f"{scope['method']} {scope['path']}") else ORDINARY_BYTES
