"""Domain errors as their callers get them."""

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DataError, IntegrityError

from optiinfra.kit import problems
from optiinfra.orchestrator import errors
from optiinfra.orchestrator.errors import Conflict, DomainError, Forbidden, NotFound, Unauthenticated

pytestmark = pytest.mark.anyio


class _SpecialConflict(Conflict):
    """A conflict of a service's own."""


async def answer_to(error: Exception, *, log: bool = False) -> httpx.Response:
    """What a caller gets when a route raises this; with `log`, what reaches the server's log is raised."""
    app = FastAPI()
    problems.install(app)
    errors.install(app)

    @app.get("/")
    async def _fail() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=log)
    async with httpx.AsyncClient(transport=transport, base_url="http://orchestrator") as client:
        return await client.get("/")


@pytest.mark.parametrize(
    ("error", "status", "code", "detail"),
    [
        (Unauthenticated("wrong_credentials", "wrong password"), 401, "wrong_credentials", "wrong password"),
        (Forbidden("only for owners"), 403, "forbidden", "only for owners"),
        (NotFound("agent"), 404, "not_found", "no such agent"),
        (Conflict("not_pending", "rec_1 is expired"), 409, "not_pending", "rec_1 is expired"),
        (_SpecialConflict("deployment_busy", "busy"), 409, "deployment_busy", "busy"),
    ],
)
async def test_domain_error_becomes_problem_details(error: DomainError, status: int, code: str, detail: str) -> None:
    answer = await answer_to(error)
    assert answer.status_code == status
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    assert (answer.json()["type"], answer.json()["detail"]) == (f"urn:optiinfra:problem:{code}", detail)


def violation(cause: Exception) -> IntegrityError:
    return IntegrityError("INSERT INTO users VALUES (secret)", {"email": "secret"}, cause)


async def test_foreign_key_violation_is_not_found() -> None:
    answer = await answer_to(violation(psycopg.errors.ForeignKeyViolation("secret")))
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:optiinfra:problem:not_found"
    assert "secret" not in answer.text


@pytest.mark.parametrize("cause", [psycopg.errors.UniqueViolation, psycopg.errors.NotNullViolation])
async def test_other_violation_is_a_defect_that_shows_no_internals(cause: type[psycopg.Error]) -> None:
    error = violation(cause("secret"))
    answer = await answer_to(error)
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:optiinfra:problem:internal"
    assert "secret" not in answer.text
    with pytest.raises(IntegrityError) as raised:  # on its way to the server's log
        await answer_to(error, log=True)
    assert raised.value is error


async def test_value_that_postgresql_cannot_store_is_invalid() -> None:
    answer = await answer_to(DataError("INSERT", {}, psycopg.DataError("secret out of range")))
    detail = "a value is too large, or has characters that cannot be stored"
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)
    assert "secret" not in answer.text
