"""Requests that a service refuses, and the problem details that a caller gets for each.

Services and workflows raise these; only the handlers below know of HTTP.
"""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, IntegrityError

from optiinfra.kit.problems import problem_response
from optiinfra.stores.postgres.violations import is_foreign_key_violation

log = structlog.get_logger(__name__)


class DomainError(Exception):
    """A request that one of our rules refuses; `code` is a stable name for programs, `detail` is for people.

    `extra` are further members of the problem details.
    """

    def __init__(self, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.code, self.detail, self.extra = code, detail, extra


class Unauthenticated(DomainError):  # noqa: N818  named after the condition, as its siblings
    """The credential is wrong, used up or revoked."""


class Forbidden(DomainError):  # noqa: N818
    """The caller's kind or role does not allow it."""

    def __init__(self, detail: str) -> None:
        super().__init__("forbidden", detail)


class NotFound(DomainError):  # noqa: N818
    """Not found; the same for an unknown id, a malformed one and another customer's."""

    def __init__(self, what: str, **extra: Any) -> None:
        super().__init__("not_found", f"no such {what}", **extra)


class Invalid(DomainError):  # noqa: N818
    """A value breaks a rule that its shape alone does not show."""

    def __init__(self, detail: str, code: str = "invalid") -> None:
        super().__init__(code, detail)


class TooManyRequests(DomainError):  # noqa: N818
    """A limit is reached; `seconds` later it may not be."""

    def __init__(self, seconds: int, detail: str = "too many requests") -> None:
        super().__init__("rate_limited", f"{detail}: try again in {seconds} s")
        self.seconds = seconds


class Conflict(DomainError):  # noqa: N818
    """The current state does not allow the request."""


_STATUS: dict[type[DomainError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Invalid: 422,
    TooManyRequests: 429,
}


def install(app: FastAPI) -> None:
    """Answer domain errors, and what PostgreSQL refuses of a request's values, with problem details."""

    @app.exception_handler(DomainError)
    async def _refused(_request: Request, error: DomainError) -> JSONResponse:
        status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
        headers = {"Retry-After": str(error.seconds)} if isinstance(error, TooManyRequests) else None
        return problem_response(status, error.code, error.detail, extra=error.extra, headers=headers)

    @app.exception_handler(DataError)
    async def _not_storable(_request: Request, error: DataError) -> JSONResponse:
        log.warning("value refused by PostgreSQL", error=str(error.orig))
        return problem_response(422, "invalid", "a value is too large, or has characters that cannot be stored")

    @app.exception_handler(IntegrityError)
    async def _violated(_request: Request, error: IntegrityError) -> JSONResponse:
        if is_foreign_key_violation(error):  # deleted between the request's own check and its insert
            return problem_response(404, "not_found", "the referenced object no longer exists")
        # A service maps the unique violations that it expects. Any other is a defect: logged, answered with 500.
        raise error
