"""What every service answers to a request that is none, and what its OpenAPI document says of that beforehand."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Form
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from optiinfra.api.common import Body, FreeJson, Text
from optiinfra.kit.app import create_app
from optiinfra.kit.auth import Principal, bearer
from optiinfra.kit.bodies import MAX_BYTES, BodyLimitMiddleware
from optiinfra.kit.openapi import error_responses
from optiinfra.kit.problems import Problem
from optiinfra.stores.errors import StoreUnavailable


class Note(Body):
    text: Text
    more: FreeJson = Field(default_factory=dict)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def authenticate(connection: HTTPConnection) -> Principal | None:
    return Principal("admin", "admin") if bearer(connection) == "right" else None


async def away() -> None:
    raise StoreUnavailable("PostgreSQL does not answer (OperationalError)")


async def refused() -> None:
    raise ConnectionError("10.1.2.3 as optiinfra")


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = create_app(
        "test",
        "1",
        lifespan=lifespan,
        authenticate=authenticate,
        public=["/open"],
        checks={"db": away, "peer": refused},
    )

    @app.post("/open", status_code=201)
    async def public(body: Note) -> Note:
        return body

    @app.post("/form")
    async def form(text: Annotated[str, Form()]) -> str:
        return text

    @app.put("/notes/{note_id}", responses=error_responses(409))
    async def put(note_id: str, body: Note) -> Note:
        raise Problem(409, "taken", f"{note_id} is taken")

    @app.get("/notes")
    async def notes(limit: int = 1) -> list[Note]:
        return []

    @app.delete("/notes/{note_id}", status_code=204)
    async def delete(note_id: str) -> None:
        pass

    with TestClient(app, headers={"Authorization": "Bearer right"}, raise_server_exceptions=False) as made:
        yield made


def problem(answer: Any, status: int, kind: str) -> str:
    """The problem's detail, once it is one of that status and kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:optiinfra:problem:{kind}"
    assert body["status"] == status
    assert body["trace_id"] == answer.headers["x-trace-id"]
    return str(body["detail"])


def test_a_wrong_path_and_a_wrong_method_are_told_what_there_is(client: TestClient) -> None:
    assert problem(client.get("/nothing"), 404, "not_found") == "no such path: /nothing"
    said = problem(client.patch("/notes"), 405, "method_not_allowed")
    assert said == "/notes allows GET, not PATCH"


def test_nobody_is_led_where_their_own_host_header_says(client: TestClient) -> None:
    answer = client.get("/notes/", headers={"Host": "elsewhere.example"}, follow_redirects=False)
    problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "body"),
        (b"{", "body.1"),
        (b"\xff\xfe", "body.0"),
        (b"[" * 100_000, "body"),
        (b"9" * 5_000, "body"),
        (b'"text"', "body"),
        (b"{}", "body.text"),
        (b'{"text": 1}', "body.text"),
        (b'{"text": "  "}', "body.text"),
        (b'{"text": "a\\u0000b"}', "body.text"),
        (b'{"text": "\\ud800"}', "body.text"),
        (b'{"text": "a", "\\ud800": 1}', "body"),
        (b'{"text": "a", "unknown": 1}', "body.unknown"),
        (b'{"text": "a", "more": ' + b'{"a":' * 100 + b"1" + b"}" * 101, "body.more"),
    ],
)
def test_a_body_of_the_wrong_shape_is_told_where(client: TestClient, body: bytes, where: str) -> None:
    answer = client.post("/open", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, 422, "invalid").startswith(f"{where}: ")


def test_a_body_that_is_not_said_to_be_json_is_none(client: TestClient) -> None:
    answer = client.post("/open", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert problem(answer, 422, "invalid").startswith("body: ")


def test_a_form_that_cannot_be_read_is_not_called_json(client: TestClient) -> None:
    kind = {"Content-Type": "multipart/form-data"}
    assert problem(client.post("/form", content=b"text=a", headers=kind), 422, "invalid") == "body: cannot be read"


def test_what_no_store_can_keep_is_replaced(client: TestClient) -> None:
    body = b'{"text": "a", "more": {"\\u0000": ["\\ud800", {"b": "\\u0000"}]}}'
    answer = client.post("/open", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert answer.json()["more"] == {"\N{REPLACEMENT CHARACTER}": ["?", {"b": "\N{REPLACEMENT CHARACTER}"}]}


def test_a_body_that_is_announced_too_large_is_refused(client: TestClient) -> None:
    answer = client.post("/open", content=b" " * (MAX_BYTES + 1), headers={"Content-Type": "application/json"})
    assert "16,777,216 bytes" in problem(answer, 413, "too_large")


@pytest.mark.anyio
async def test_a_body_that_becomes_too_large_is_read_no_further() -> None:
    pieces = iter([{"type": "http.request", "body": b"12345", "more_body": True}] * 5)
    read: list[int] = []

    async def receive() -> Any:
        piece = next(pieces, None)
        assert piece is not None, "it is read to its end"
        return piece

    async def reader(_scope: Any, receive: Any, _send: Any) -> None:
        while True:
            read.append(len((await receive())["body"]))

    async def send(_message: Any) -> None:
        raise AssertionError("nobody answers while a body is read")

    with pytest.raises(HTTPException) as refused:
        await BodyLimitMiddleware(reader, max_bytes=12)({"type": "http", "headers": []}, receive, send)
    assert refused.value.status_code == 413
    assert read == [5, 5]


def test_a_body_of_the_largest_size_is_read(client: TestClient) -> None:
    body = b'{"text": "a"}'.ljust(MAX_BYTES)
    answer = client.post("/open", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


def test_who_is_unknown_hears_of_nothing_else(client: TestClient) -> None:
    wrong: dict[str, Any] = {"headers": {"Authorization": "Bearer wrong"}}
    for answer in (
        client.get("/nothing", **wrong),
        client.patch("/notes", **wrong),
        client.put("/notes/a", content=b"{", **wrong),
        client.put("/notes/a", content=b" " * (MAX_BYTES + 1), **wrong),
    ):
        assert "Authorization: Bearer" in problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_strangers_hear_what_is_away_and_not_where(client: TestClient) -> None:
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "db": "PostgreSQL does not answer (OperationalError)",
        "peer": "ConnectionError",
    }


def test_the_document_says_what_is_answered(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    answers = {
        f"{method} {path}": set(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert answers["post /open"] == {"201", "413", "422", "5XX"}
    assert answers["put /notes/{note_id}"] == {"200", "401", "403", "404", "409", "413", "422", "5XX"}
    assert answers["get /notes"] == {"200", "401", "403", "422", "5XX"}
    assert answers["delete /notes/{note_id}"] == {"204", "401", "403", "404", "5XX"}
    assert "content" not in document["paths"]["/notes/{note_id}"]["delete"]["responses"]["204"]
    assert "security" not in document["paths"]["/open"]["post"]
    assert document["paths"]["/notes"]["get"]["security"] == [{"bearer": []}]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    refused = document["paths"]["/notes"]["get"]["responses"]["401"]["content"]
    assert refused == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
