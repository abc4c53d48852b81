"""A service with a few routes, and a check of the problem details that it answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Form
from pydantic import Field
from starlette.requests import HTTPConnection

from optiinfra.api.common import Body, FreeJson, Text
from optiinfra.kit.app import create_app
from optiinfra.kit.auth import Principal, bearer
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


async def unavailable_database() -> None:
    raise StoreUnavailable("PostgreSQL does not answer (OperationalError)")


async def unreachable_peer() -> None:
    raise ConnectionError("10.1.2.3 as optiinfra")


def notes_service() -> FastAPI:
    """An application with public and authenticated routes, none of whose dependencies answers."""
    app = create_app(
        "test",
        "1",
        lifespan=lifespan,
        authenticate=authenticate,
        public=["/open"],
        large_bodies=["POST /notes/[^/]+/text"],
        checks={"db": unavailable_database, "peer": unreachable_peer},
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

    @app.post("/notes/{note_id}/text", status_code=201)
    async def text(note_id: str, body: Note) -> None:
        pass

    @app.get("/notes")
    async def notes(limit: int = 1) -> list[Note]:
        return []

    @app.delete("/notes/{note_id}", status_code=204)
    async def delete(note_id: str) -> None:
        pass

    return app


def problem_detail(answer: Any, status: int, kind: str) -> str:
    """The detail of an answer that must be a problem of that status and kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:optiinfra:problem:{kind}"
    assert body["status"] == status
    assert body["trace_id"] == answer.headers["x-trace-id"]
    return str(body["detail"])
