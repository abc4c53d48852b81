"""Errors on the wire: RFC 9457 problem details."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from optiinfra.kit.logging import TRACE_HEADER, trace_id

MEDIA_TYPE = "application/problem+json"
_KINDS = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class Misfit(BaseModel):
    """One place of a request that has not the right shape, such as `body.email`."""

    where: str
    what: str


class ProblemDetails(BaseModel):
    """An error, as every route answers it; `trace_id` leads to more in the logs, `errors` comes with 422."""

    type: str
    title: str
    status: int
    detail: str
    trace_id: str
    errors: list[Misfit] | None = None


class Problem(Exception):  # noqa: N818  RFC 9457's own word
    """An error that the caller is told of; `kind` is a stable name for programs, `detail` is for people."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail


def not_found(what: str) -> Problem:
    """The one answer for an unknown id, a malformed one and another tenant's."""
    return Problem(404, "not_found", f"no such {what}")


def problem_response(
    status: int, kind: str, detail: str, *, extra: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The response that says so, with the trace id under which the logs tell more."""
    body = {
        "type": f"urn:optiinfra:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "trace_id": trace_id(),
    } | (extra or {})
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Turn everything that a handler raises into problem details."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> JSONResponse:
        return problem_response(error.status, error.kind, error.detail)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        status, detail = error.status_code, str(error.detail)
        if status == 400:  # FastAPI's and Starlette's word for what no parser takes, be it JSON or a form
            status, detail = 422, "body: cannot be read"
        elif status == 404:
            detail = f"no such path: {request.url.path}"
        elif status == 405:
            detail = f"{request.url.path} takes {(headers or {}).get('Allow')}, not {request.method}"
        return problem_response(status, _KINDS.get(status, "invalid"), detail, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [{"where": ".".join(map(str, item["loc"])), "what": item["msg"]} for item in error.errors()]
        detail = "; ".join(f"{item['where']}: {item['what']}" for item in errors)
        return problem_response(422, "invalid", detail, extra={"errors": errors})

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
        # Starlette raises it again behind this answer, and uvicorn logs it.
        # This answer is made outside of what puts the trace id on every other.
        return problem_response(
            500,
            "internal",
            "an unexpected error; the trace id leads to it in the logs",
            headers={TRACE_HEADER: trace_id()},
        )
