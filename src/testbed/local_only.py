"""Refuses web pages on servers that know no credential: the mock cloud and the sandbox.

A page in the user's browser can send requests to this machine. Its browser names the page in `Origin`, or, if the
page's own name resolves to this machine, that name in `Host`. In a container the server has a name of its own, and is
reached through proxies on the host: `OPTIINFRA_LOCAL_NAMES` adds these, separated by commas.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})
NAMES_VARIABLE = "OPTIINFRA_LOCAL_NAMES"
REFUSAL = b"only programs on this machine may call this server, and no web page\n"

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
AsgiApp = Callable[[Any, Any, Any], Any]


def is_local(host: str | None, origin: str | None) -> bool:
    """Whether the `Host` and, if there is one, the `Origin` of a request are this machine."""
    local = LOCAL.union(filter(None, os.environ.get(NAMES_VARIABLE, "").split(",")))
    return _name(f"//{host or ''}") in local and (origin is None or _name(origin) in local)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def wsgi(app: WsgiApp) -> WsgiApp:
    """The application for local requests only."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if is_local(environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN")):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Content-Length", str(len(REFUSAL)))])
        return [REFUSAL]

    return guarded


def asgi(app: AsgiApp) -> AsgiApp:
    """The application for local requests only."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        if scope["type"] == "http" and not is_local(headers.get(b"host"), headers.get(b"origin")):
            start = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}
            await send(start)
            await send({"type": "http.response.body", "body": REFUSAL})
            return
        await app(scope, receive, send)

    return guarded
