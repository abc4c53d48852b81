"""The clients of the orchestrator's API: requests that they send, responses and errors that they parse."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import pytest

from optiinfra.api import calls
from optiinfra.api.calls import Call
from optiinfra.api.client import ApiClient, ApiError, AsyncApiClient, InvalidResponseError
from optiinfra.api.customers import Preferences

T = TypeVar("T")
Handler = Callable[[httpx.Request], httpx.Response]
Send = Callable[[Handler, Call[Any]], Any]
PROBLEM = {
    "type": "urn:optiinfra:problem:preflight_failed",
    "title": "Conflict",
    "status": 409,
    "detail": "an instance is protected",
    "trace_id": "trace-1",
}


def send(handler: Handler, call: Call[T]) -> T:
    with httpx.Client(transport=httpx.MockTransport(handler), base_url="http://orchestrator") as http:
        return ApiClient(http).send(call, "token")


def send_async(handler: Handler, call: Call[T]) -> T:
    async def run() -> T:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://orchestrator") as http:
            return await AsyncApiClient(http).send(call, "token")

    return asyncio.run(run())


both_clients = pytest.mark.parametrize("send", [send, send_async], ids=["sync", "async"])


@both_clients
def test_send_returns_the_typed_response(send: Send) -> None:
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"status": "approved", "optimization_id": "opt_1"})

    assert send(respond, calls.approve("rec_1")).optimization_id == "opt_1"
    (request,) = requests
    assert (request.method, request.url.path) == ("POST", "/recommendations/rec_1/approve")
    assert request.headers["authorization"] == "Bearer token"
    assert request.content == b""


@both_clients
def test_send_body_has_only_the_fields_that_were_set(send: Send) -> None:
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"max_risk": "low"})

    changed = send(respond, calls.update_preferences("cust_1", Preferences(max_risk="low")))
    assert changed == Preferences(max_risk="low")
    assert json.loads(requests[0].content) == {"max_risk": "low"}
    assert requests[0].headers["content-type"] == "application/json"


@both_clients
def test_send_response_without_content_is_none(send: Send) -> None:
    assert send(lambda _request: httpx.Response(204), calls.delete_customer("cust_1")) is None


@both_clients
def test_send_error_carries_the_problem_details(send: Send) -> None:
    with pytest.raises(ApiError, match="POST /recommendations/rec_1/approve answered 409: an instance is") as caught:
        send(lambda _request: httpx.Response(409, json=PROBLEM), calls.approve("rec_1"))
    error = caught.value
    assert (error.status, error.kind, error.detail) == (409, "preflight_failed", "an instance is protected")
    assert error.problem is not None
    assert error.problem.trace_id == "trace-1"


@both_clients
def test_send_error_without_problem_details_quotes_the_response(send: Send) -> None:
    with pytest.raises(ApiError, match="answered 502: <html>") as caught:
        send(lambda _request: httpx.Response(502, text="<html>" + "x" * 10_000), calls.agents())
    assert (caught.value.status, caught.value.kind, caught.value.problem) == (502, "", None)
    assert len(str(caught.value)) < 500


@both_clients
def test_send_response_of_another_shape_is_invalid(send: Send) -> None:
    with pytest.raises(InvalidResponseError, match="GET /orchestrator/agents answered 200 with an invalid body"):
        send(lambda _request: httpx.Response(200, json={"agents": []}), calls.agents())


@both_clients
def test_send_without_response_raises_the_transport_error(send: Send) -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(httpx.ConnectError):
        send(refuse, calls.agents())
