"""Clients of the orchestrator's HTTP API, synchronous and asynchronous: they send the calls of `api.calls`."""

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from optiinfra.api.calls import Call
from optiinfra.api.problems import ProblemDetails, kind_of

T = TypeVar("T")

_QUOTED = 300
"""Characters of a response without problem details that the error message quotes."""


class ApiError(Exception):
    """The orchestrator answered a call with an error.

    `kind` is the problem's short name, such as `store_unavailable`, and `detail` its text for people. If the response
    has no problem details, `kind` is empty and `detail` names the status; the message quotes the response.
    """

    def __init__(self, call: str, status: int, text: str, problem: ProblemDetails | None = None) -> None:
        super().__init__(f"{call} answered {status}: {problem.detail if problem else text}")
        self.status, self.problem = status, problem
        self.kind = kind_of(problem.type) if problem else ""
        self.detail = problem.detail if problem else f"the platform answered with status {status}"


class InvalidResponseError(Exception):
    """A successful response does not have the shape that the API promises; the cause is pydantic's ValidationError."""


class ApiClient:
    """Sends calls synchronously, with the headers of `http`."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def send(self, call: Call[T], token: str | None = None) -> T:
        """The response. Raises ApiError, InvalidResponseError, or httpx.HTTPError if there is no response."""
        return _parse(call, self._http.request(call.method, call.path, **_arguments(call, token)))


class AsyncApiClient:
    """Sends calls asynchronously, with the headers of `http`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(self, call: Call[T], token: str | None = None, headers: Mapping[str, str] | None = None) -> T:
        """The response. Raises ApiError, InvalidResponseError, or httpx.HTTPError if there is no response."""
        return _parse(call, await self._http.request(call.method, call.path, **_arguments(call, token, headers)))


def _arguments(call: Call[Any], token: str | None, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What httpx needs besides method and path. Fields of the body that were not set are not sent."""
    headers = dict(more or {}) | ({"authorization": f"Bearer {token}"} if token else {})
    if call.body is None:
        return {"params": dict(call.query), "headers": headers}
    content = call.body.model_dump_json(exclude_unset=True)
    return {"params": dict(call.query), "headers": headers | {"content-type": "application/json"}, "content": content}


def _parse(call: Call[T], response: httpx.Response) -> T:
    if not response.is_success:
        raise ApiError(str(call), response.status_code, response.text[:_QUOTED], _problem(response))
    try:
        return call.response.validate_json(response.content or b"null")
    except ValidationError as error:
        raise InvalidResponseError(f"{call} answered {response.status_code} with an invalid body") from error


def _problem(response: httpx.Response) -> ProblemDetails | None:
    try:
        return ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return None
