"""What a browser needs around every answer: who may send forms, what a page may load, sign-in in place of a 401."""

import json
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit.problems import Problem, problem_response
from optiinfra.portal.sessions import COOKIE, Sessions

_PROTECTION = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not "no-referrer": under it browsers send forms with `Origin: null`.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

RenderProblem = Callable[[int, str, str], str]
"""Status, detail and trace id to a page."""


def set_session_cookie(response: Response, connection: HTTPConnection, value: str) -> None:
    """The session's cookie: for this site's own requests alone, out of scripts' reach, until the browser closes."""
    response.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=connection.url.scheme == "https")


def wants_page(scope: Scope) -> bool:
    """Whether a person looks at the answer, rather than a program."""
    return "text/html" in Headers(scope=scope).get("accept", "")


class BrowserMiddleware:
    """Outermost: guards, completes and translates what lies within."""

    def __init__(self, app: ASGIApp, sessions: Sessions, render_problem: RenderProblem) -> None:
        self.app, self.sessions, self.render_problem = app, sessions, render_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(self, scope, receive, send)
        if scope["method"] not in _SAFE_METHODS and _from_elsewhere(HTTPConnection(scope)):
            refusal = problem_response(403, "foreign_origin", "this form was sent from another site")
            await refusal(scope, receive, answer.send)
            return
        try:
            await self.app(scope, receive, answer.send)
        except Problem as problem:  # raised while finding out who calls
            response = problem_response(problem.status, problem.kind, problem.detail)
            await response(scope, receive, answer.send)
        except Exception:
            if not answer.begun:
                response = problem_response(500, "internal", "an unexpected error; the trace leads to it in the logs")
                await response(scope, receive, answer.send)
            raise  # to be logged


class _Answer:
    """One answer on its way out. A problem on its way to a person is held back and replaced by a page."""

    def __init__(self, middleware: BrowserMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._middleware, self._scope, self._receive, self._send = middleware, scope, receive, send
        self.begun = False
        self._problem: int | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        self.begun = True
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            if headers.get("content-type") == "application/problem+json" and wants_page(self._scope):
                self._problem = message["status"]
                return
            message["headers"] = [*message["headers"], *self._added(headers)]
        if self._problem is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            status, self._problem = self._problem, None
            await self._instead(status)(self._scope, self._receive, self.send)

    def _added(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        added = {name: value for name, value in _PROTECTION.items() if name not in headers}
        if "cache-control" not in headers and not self._scope["path"].startswith("/static/"):
            added["cache-control"] = "no-store"
        raw = [(name.encode(), value.encode()) for name, value in added.items()]
        renewed = self._scope.get("state", {}).get("renewed_session")
        if renewed is not None and COOKIE not in headers.get("set-cookie", ""):
            carrier = Response()
            set_session_cookie(carrier, HTTPConnection(self._scope), self._middleware.sessions.seal(renewed))
            raw.append((b"set-cookie", carrier.headers["set-cookie"].encode()))
        return raw

    def _instead(self, status: int) -> Response:
        if status == 401:
            target = self._scope["path"] if self._scope["method"] == "GET" else "/"
            response: Response = RedirectResponse(f"/login?next={quote(target)}", 303)
            response.delete_cookie(COOKIE)
            self._scope.get("state", {}).pop("renewed_session", None)
            return response
        problem = json.loads(self._body)
        page = self._middleware.render_problem(status, problem["detail"], problem["trace_id"])
        return HTMLResponse(page, status)


def _from_elsewhere(connection: HTTPConnection) -> bool:
    """Whether a browser says that another site sent this. Programs say nothing, and carry no cookie unasked."""
    if connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = connection.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != connection.headers.get("host")
