"""Bodies that are validated from JSON, compared with ordinary ones."""

from typing import Annotated

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from pydantic import Field

from optiinfra.api.common import Body, Moment
from optiinfra.kit import problems
from optiinfra.kit.raw_json import RawJsonRoute, from_raw_json

JSON = "application/json"


class Reading(Body):
    at: Moment
    values: list[Annotated[float, Field(ge=0)]]


router, bulk_router = APIRouter(), APIRouter(route_class=RawJsonRoute)


@router.post("/ordinary")
async def ordinary(body: Reading) -> Reading:
    """The body, as FastAPI parses it."""
    return body


@bulk_router.post("/raw")
async def raw(body: Annotated[Reading, from_raw_json(Reading.model_validate_json)]) -> Reading:
    """The body, validated from JSON."""
    return body


router.include_router(bulk_router)


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    problems.install(app)
    return TestClient(app)


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, JSON, '{"at": "2026-01-01T02:00:00+02:00", "values": [1, 2.5]}'),
        (200, "application/vnd.readings+json", '{"at": "2026-01-01T00:00:00Z", "values": []}'),
        (422, JSON, '{"at": "2026-01-01T00:00:00", "values": []}'),
        (422, JSON, '{"at": "2026-01-01T00:00:00Z", "values": [0, -1]}'),
        (422, JSON, '{"at": "2026-01-01T00:00:00Z", "values": [], "more": 1}'),
        (422, JSON, "{}"),
        (422, JSON, "null"),
        (422, JSON, ""),
        (422, "text/plain", '{"at": "2026-01-01T00:00:00Z", "values": []}'),
    ],
)
def test_body_is_answered_as_an_ordinary_one(client: TestClient, status: int, content_type: str, body: str) -> None:
    expected, answer = (
        client.post(path, content=body, headers={"Content-Type": content_type}) for path in ("/ordinary", "/raw")
    )
    assert expected.status_code == answer.status_code == status
    if status == 200:
        assert answer.json() == expected.json()
    else:
        named, expected_named = ([error["where"] for error in one.json()["errors"]] for one in (answer, expected))
        assert named == expected_named


@pytest.mark.parametrize("body", ["{", "nothing", '{"at": NaN}', '"\\ud800"', "[" * 50_000])
def test_body_that_is_not_json_is_refused(client: TestClient, body: str) -> None:
    answer = client.post("/raw", content=body, headers={"Content-Type": JSON})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("body")


def test_body_is_documented_as_an_ordinary_one(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert paths["/raw"]["post"]["requestBody"] == paths["/ordinary"]["post"]["requestBody"]
