"""Requests of callers who have to wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from fastapi import FastAPI, WebSocket
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from optiinfra.kit.app import create_app
from optiinfra.kit.auth import Principal, bearer
from tests.unit.kit.service import problem_detail


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def authenticate(connection: HTTPConnection) -> Principal | None:
    return Principal("user", token) if (token := bearer(connection)) else None


async def seconds_to_wait(connection: HTTPConnection) -> int | None:
    principal: Principal = connection.state.principal
    return 7 if principal.subject == "busy" else None


@pytest.fixture
def client() -> TestClient:
    app = create_app("test", "1", lifespan=lifespan, authenticate=authenticate, seconds_to_wait=seconds_to_wait)

    @app.get("/things")
    async def things() -> str:
        return "things"

    @app.websocket("/live")
    async def live(websocket: WebSocket, after: int = 0) -> None:
        await websocket.accept()
        await websocket.close()

    return TestClient(app)


def test_caller_who_has_to_wait_is_refused_with_the_seconds(client: TestClient) -> None:
    answer = client.get("/things", headers={"Authorization": "Bearer busy"})
    assert problem_detail(answer, 429, "rate_limited") == "too many requests: try again in 7 s"
    assert answer.headers["retry-after"] == "7"
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/live", headers={"Authorization": "Bearer busy"}),
    ):
        pass
    assert (closed.value.code, closed.value.reason) == (4429, "too many requests: try again in 7 s")


def refused_streams(client: TestClient) -> dict[str, float]:
    """How many requests were refused, by status and reason."""
    lines = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("optiinfra_refused_requests_total{")
    ]
    return {line.partition("{")[2].partition("}")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize(
    ("path", "credential", "counted"),
    [
        ("/live", "busy", 'reason="rate_limited",status="429"'),
        ("/live", "", 'reason="unauthenticated",status="401"'),
        ("/nothing", "calm", 'reason="not_found",status="404"'),
        ("/live?after=x", "calm", 'reason="invalid",status="422"'),
        ("/live", "calm", None),
    ],
)
def test_refused_stream_is_counted_as_a_refused_request(
    client: TestClient, path: str, credential: str, counted: str | None
) -> None:
    before = refused_streams(client)
    headers = {"Authorization": f"Bearer {credential}"}
    with suppress(WebSocketDisconnect), client.websocket_connect(path, headers=headers) as stream:
        stream.receive()
    grown = {name: count - before.get(name, 0) for name, count in refused_streams(client).items()}
    assert {name: by for name, by in grown.items() if by} == ({} if counted is None else {counted: 1})


def test_other_caller_and_public_route_are_not_refused(client: TestClient) -> None:
    assert client.get("/things", headers={"Authorization": "Bearer calm"}).json() == "things"
    assert client.get("/health").status_code == 200
    problem_detail(client.get("/things"), 401, "unauthenticated")
