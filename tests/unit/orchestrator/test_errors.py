"""Domain errors as their callers get them."""

import httpx
import pytest
from fastapi import FastAPI

from optiinfra.kit import problems
from optiinfra.orchestrator import errors
from optiinfra.orchestrator.errors import Conflict, DomainError, Forbidden, NotFound, Unauthenticated

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class _SpecialConflict(Conflict):
    """A conflict of a service's own."""


async def answer_to(error: Exception) -> httpx.Response:
    """What a caller gets when a route raises this."""
    app = FastAPI()
    problems.install(app)
    errors.install(app)

    @app.get("/")
    async def _fail() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
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
