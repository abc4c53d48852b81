"""Request bodies that are judged after the caller: one that is no JSON is refused by the validation, as any other."""

from collections.abc import Callable, Coroutine
from json import JSONDecodeError
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from optiinfra.kit.problems import UNREADABLE_BODY


class _Request(Request):
    async def json(self) -> Any:
        try:
            return await super().json()
        except JSONDecodeError as error:
            where, what = f"body.{error.pos}", "JSON decode error"
        except (ValueError, RecursionError):
            where, what = "body", "cannot be read"
        self.scope[UNREADABLE_BODY] = where, what
        return ""  # no model accepts it


class LateBodyRoute(APIRoute):
    """A route whose dependencies, such as those that check the caller, run before its body is found to be no JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that does not raise for its body."""
        handle = super().get_route_handler()

        async def handle_late(request: Request) -> Response:
            return await handle(_Request(request.scope, request.receive))

        return handle_late
