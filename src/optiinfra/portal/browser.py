"""Middleware for browsers: cross-site request forgery protection, security headers, error pages, sign-in for a 401."""

import json
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import Problem, problem_response
from optiinfra.portal.platform import CLIENT_ADDRESS
from optiinfra.portal.sessions import COOKIE, Sessions

_SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not "no-referrer": with it browsers send forms with `Origin: null`.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

RenderProblem = Callable[[int, str, str], str]
"""The HTML of an error page from status, detail and trace id."""


def set_session_cookie(response: Response, connection: HTTPConnection, value: str) -> None:
    """Set the session cookie: SameSite=Strict, HttpOnly, until the browser is closed."""
    response.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=connection.url.scheme == "https")


def wants_page(scope: Scope) -> bool:
    """Whether the client accepts HTML, as a browser does when it loads a page."""
    return "text/html" in Headers(scope=scope).get("accept", "")


class BrowserMiddleware:
    """The outermost middleware: checks the origin of requests, adds headers, turns problem details into pages."""

    def __init__(self, app: ASGIApp, sessions: Sessions, render_problem: RenderProblem) -> None:
        self.app, self.sessions, self.render_problem = app, sessions, render_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        CLIENT_ADDRESS.set(scope["client"][0] if scope.get("client") else None)
        response_filter = _ResponseFilter(self, scope, receive, send)
        if scope["method"] not in _SAFE_METHODS and _is_cross_site(HTTPConnection(scope)):
            refusal = problem_response(403, "foreign_origin", "this form was sent from another site")
            await refusal(scope, receive, response_filter.send)
            return
        try:
            await self.app(scope, receive, response_filter.send)
        except Problem as problem:  # raised during authentication
            response = problem_response(problem.status, problem.kind, problem.detail)
            await response(scope, receive, response_filter.send)
        except Exception:
            if not response_filter.started:
                response = problem_response(500, "internal", "an unexpected error; its trace id is in the logs")
                await response(scope, receive, response_filter.send)
            raise  # uvicorn logs it


class _ResponseFilter:
    """Adds headers to one response. Problem details for a browser are replaced by a page."""

    def __init__(self, middleware: BrowserMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._middleware, self._scope, self._receive, self._send = middleware, scope, receive, send
        self.started = False
        self._problem: int | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        self.started = True
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            if headers.get("content-type") == "application/problem+json" and wants_page(self._scope):
                self._problem = message["status"]
                return
            message["headers"] = [*message["headers"], *self._additional_headers(headers)]
        if self._problem is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            status, self._problem = self._problem, None
            await self._replacement(status)(self._scope, self._receive, self.send)

    def _additional_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        additional = {name: value for name, value in _SECURITY_HEADERS.items() if name not in headers}
        if "cache-control" not in headers and not self._scope["path"].startswith("/static/"):
            additional["cache-control"] = "no-store"
        raw = [(name.encode(), value.encode()) for name, value in additional.items()]
        renewed = self._scope.get("state", {}).get("renewed_session")
        if renewed is not None and COOKIE not in headers.get("set-cookie", ""):
            carrier = Response()
            set_session_cookie(carrier, HTTPConnection(self._scope), self._middleware.sessions.seal(renewed))
            raw.append((b"set-cookie", carrier.headers["set-cookie"].encode()))
        return raw

    def _replacement(self, status: int) -> Response:
        if status == 401:
            target = self._scope["path"] if self._scope["method"] == "GET" else "/"
            response: Response = RedirectResponse(f"/login?next={quote(target)}", 303)
            response.delete_cookie(COOKIE)
            self._scope.get("state", {}).pop("renewed_session", None)
            return response
        problem = json.loads(self._body)
        page = self._middleware.render_problem(status, problem["detail"], problem["trace_id"])
        return HTMLResponse(page, status)


def _is_cross_site(connection: HTTPConnection) -> bool:
    """Whether the browser says that another site sent the request. Other clients send neither header nor cookie."""
    if connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = connection.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != connection.headers.get("host")
