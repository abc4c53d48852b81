"""Limits of request bodies."""

from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from optiinfra.kit.bodies import LARGE_BYTES, MAX_VALUES, ORDINARY_BYTES, PUBLIC_BYTES, BodyLimitMiddleware
from tests.unit.kit.service import problem_detail

JSON = {"Content-Type": "application/json"}
RIGHT = {"Authorization": "Bearer right"}
LIMITS = [
    ("POST", "/open", PUBLIC_BYTES, {}, 201),
    ("PUT", "/notes/a", ORDINARY_BYTES, RIGHT, 409),
    ("POST", "/notes/a/text", LARGE_BYTES, RIGHT, 201),
]


@pytest.mark.parametrize(("method", "path", "most", "credential", "accepted"), LIMITS)
def test_body_of_the_largest_size_is_accepted_and_a_larger_one_answers_413(
    client: TestClient, method: str, path: str, most: int, credential: dict[str, str], accepted: int
) -> None:
    body = b'{"text": "a"}'.ljust(most)
    assert client.request(method, path, content=body, headers=JSON | credential).status_code == accepted
    answer = client.request(method, path, content=body + b" ", headers=JSON | credential)
    assert problem_detail(answer, 413, "too_large") == f"the body of this request may have at most {most:,} bytes"


def test_body_with_too_many_values_answers_413(client: TestClient) -> None:
    body = b'{"text": "a", "more": {"a": [' + b"[]," * MAX_VALUES + b"[]]}}"
    answer = client.post("/notes/a/text", content=body, headers=JSON | RIGHT)
    assert problem_detail(answer, 413, "too_large").startswith("a request body may have at most 400,000 lists")


@pytest.mark.anyio
async def test_chunked_body_above_limit_is_not_read_further() -> None:
    pieces = iter([{"type": "http.request", "body": bytes(PUBLIC_BYTES // 2), "more_body": True}] * 5)
    read: list[int] = []

    async def receive() -> Any:
        piece = next(pieces, None)
        assert piece is not None, "the whole body was read"
        return piece

    async def reader(_scope: Any, receive: Any, _send: Any) -> None:
        while True:
            read.append(len((await receive())["body"]))

    async def send(_message: Any) -> None:
        raise AssertionError("a response was sent before the body was read")

    scope = {"type": "http", "method": "POST", "path": "/open", "headers": []}
    with pytest.raises(HTTPException) as raised:
        await BodyLimitMiddleware(reader, public=["/open"])(scope, receive, send)
    assert raised.value.status_code == 413
    assert read == [PUBLIC_BYTES // 2] * 2
