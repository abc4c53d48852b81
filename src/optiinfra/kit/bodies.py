"""Limit of the request body's size: a larger body is rejected before it fills the memory."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import problem_response

MAX_BYTES = 16 * 2**20
"""The largest allowed telemetry batch takes half of it."""


class BodyLimitMiddleware:
    """Rejects a body whose Content-Length is too large, and stops reading one that grows beyond the limit."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BYTES) -> None:
        self.app, self.max_bytes = app, max_bytes
        self.detail = f"a request body may have at most {max_bytes:,} bytes: send several smaller requests"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # uvicorn has checked that it is a number.
        if int(Headers(scope=scope).get("content-length", 0)) > self.max_bytes:
            await problem_response(413, "too_large", self.detail)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.max_bytes:
                raise HTTPException(413, self.detail)
            return message

        await self.app(scope, counted, send)
