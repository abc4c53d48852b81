"""Calls of the orchestrator's API, and their errors as the portal shows them."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from optiinfra.api import calls
from optiinfra.api.events import SUBPROTOCOL, Event
from optiinfra.kit.problems import Problem
from optiinfra.portal import platform as module
from optiinfra.portal.platform import Platform
from tests.unit.logs import logged
from tests.unit.portal import fake

EVENT = Event(
    id="evt_44",
    seq=44,
    event_type="step_started",
    source="orchestrator",
    agent_type=None,
    payload={},
    created_at=fake.NOW,
)


def send_identity(handler: Callable[[httpx.Request], httpx.Response]) -> Problem:
    """The problem that a call ends with when the orchestrator responds so."""

    async def send() -> None:
        client = httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://orchestrator")
        await Platform(client, fake.SECRET).send(calls.identity(), "token")

    with pytest.raises(Problem) as caught:
        asyncio.run(send())
    return caught.value


def test_send_refused_call_raises_the_orchestrators_problem() -> None:
    problem = send_identity(lambda _request: fake.problem(409, "preflight_failed", "an instance is protected"))
    assert (problem.status, problem.kind, problem.detail) == (409, "preflight_failed", "an instance is protected")


def test_send_refused_call_without_problem_details_names_the_status() -> None:
    problem = send_identity(lambda _request: httpx.Response(418, text="teapot"))
    assert (problem.status, problem.kind) == (418, "refused")
    assert "status 418" in problem.detail


def test_send_server_error_is_shown_as_unavailable_without_its_detail() -> None:
    problem = send_identity(lambda _request: fake.problem(500, "internal", "secret detail"))
    assert (problem.status, problem.kind) == (503, "platform_unavailable")
    assert "secret" not in problem.detail


def test_send_without_response_is_unavailable() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    problem = send_identity(refuse)
    assert (problem.status, problem.kind) == (503, "platform_unavailable")


def test_send_invalid_response_is_a_bad_gateway_logged_without_values() -> None:
    with logged(module) as logs:
        problem = send_identity(lambda _request: httpx.Response(200, json={"email": ["secret"]}))
    assert problem.status == 502
    assert logs[0]["call"] == "GET /auth/me"
    assert {tuple(error["loc"]) for error in logs[0]["errors"]} == {("customer_id",), ("email",), ("role",)}
    assert "secret" not in str(logs)


def test_events_of_an_unreachable_platform_are_a_problem() -> None:
    platform = Platform(httpx.AsyncClient(base_url="http://127.0.0.1:9"), fake.SECRET)

    async def read() -> None:
        async for _ in platform.events("token", "cust_1", 0, 1.0):
            pass

    with pytest.raises(Problem, match="does not answer"):
        asyncio.run(read())


@pytest.mark.parametrize(("sent", "raised"), [("{}", "cannot be read"), (EVENT.model_dump_json(), None)])
def test_events_are_parsed_or_a_problem(sent: str, raised: str | None) -> None:
    async def send(socket: ServerConnection) -> None:
        await socket.send(sent)

    async def read() -> list[Event | None]:
        async with serve(send, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            platform = Platform(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"), fake.SECRET)
            return [one async for one in platform.events("token", "cust_1", 0, 5.0)]

    if raised is None:
        assert asyncio.run(read()) == [EVENT]
    else:
        with pytest.raises(Problem, match=raised):
            asyncio.run(read())
