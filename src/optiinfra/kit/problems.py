"""Errors on the wire: RFC 9457 problem details."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import Counter
from starlette.exceptions import HTTPException

from optiinfra.api.problems import PREFIX
from optiinfra.kit.logging import TRACE_HEADER, trace_id

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "2"}
"""Header of a 503 that a client may retry."""
_MOST_ERRORS, _MOST_CHARACTERS = 20, 1_000
"""How much of what is wrong with a request is reported. What was sent may be long, and part of an error's text."""
_PATH_CHARACTERS = 200
_REFUSALS = Counter("optiinfra_refused_requests", "Requests answered with an error of the caller", ["status", "reason"])
UNREADABLE_BODY = "optiinfra.unreadable_body"
"""Key of a request's scope: where a body that is no JSON cannot be read, and why."""
_STATUS_OF_CODES = {1000: 404, 1008: 422}
"""Starlette's codes for an unknown path, and for invalid parameters."""
_STREAM_KINDS = {401: "unauthenticated", 404: "not_found", 422: "invalid", 429: "rate_limited"}
_KINDS = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class Problem(Exception):  # noqa: N818  RFC 9457's term
    """An error to return to the caller: `kind` is a stable name for programs, `detail` a text for people."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail


def not_found(what: str) -> Problem:
    """The same error for an unknown id, a malformed one and another tenant's."""
    return Problem(404, "not_found", f"no such {what}")


def problem_response(
    status: int, kind: str, detail: str, *, extra: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A problem details response (RFC 9457) with the current trace id. Refusals are counted by their kind."""
    if status < 500:
        _REFUSALS.labels(status, kind).inc()
    body = {
        "type": f"{PREFIX}{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "trace_id": trace_id(),
    } | (extra or {})
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def count_refused_stream(code: int) -> None:
    """Count a WebSocket that is refused with this close code: 4000 and an HTTP status, or one of Starlette's."""
    status = _STATUS_OF_CODES.get(code, code - 4000)
    _REFUSALS.labels(status, _STREAM_KINDS.get(status, "refused")).inc()


def invalid_response(errors: Sequence[tuple[str, str]]) -> JSONResponse:
    """A 422 that names what is wrong where, as far as there is room."""
    shown, room = [], _MOST_CHARACTERS
    for where, what in errors[:_MOST_ERRORS]:
        if room <= 0:
            break
        shown.append({"where": where[:room], "what": what[: max(0, room - len(where))]})
        room -= len(where) + len(what)
    detail = "; ".join(f"{item['where']}: {item['what']}" for item in shown)
    if left := len(errors) - len(shown):
        detail += f"; and {left:,} more"
    return problem_response(422, "invalid", detail, extra={"errors": shown})


def install(app: FastAPI) -> None:
    """Return problem details for every exception that a handler raises."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> JSONResponse:
        return problem_response(error.status, error.kind, error.detail)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        path = request.url.path[:_PATH_CHARACTERS]
        status, detail = error.status_code, str(error.detail)
        if status == 400:  # FastAPI and Starlette answer so if the body is neither JSON nor a form
            status, detail = 422, "body: cannot be read"
        elif status == 404:
            detail = f"no such path: {path}"
        elif status == 405:
            detail = f"{path} allows {(headers or {}).get('Allow')}, not {request.method}"
        return problem_response(status, _KINDS.get(status, "invalid"), detail, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if (unreadable := request.scope.get(UNREADABLE_BODY)) is not None:
            return invalid_response([unreadable])
        return invalid_response([(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()])

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
        # Starlette re-raises the exception after this response, and uvicorn logs it.
        # The middleware that adds the trace id to responses does not see this one.
        return problem_response(
            500,
            "internal",
            "an unexpected error; the trace id leads to it in the logs",
            headers={TRACE_HEADER: trace_id()},
        )
