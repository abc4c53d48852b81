"""The size limit of request bodies."""

from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from optiinfra.kit.bodies import MAX_BYTES, BodyLimitMiddleware
from tests.unit.kit.service import problem_detail


def test_content_length_above_limit_answers_413(client: TestClient) -> None:
    answer = client.post("/open", content=b" " * (MAX_BYTES + 1), headers={"Content-Type": "application/json"})
    assert "16,777,216 bytes" in problem_detail(answer, 413, "too_large")


@pytest.mark.anyio
async def test_chunked_body_above_limit_is_not_read_further() -> None:
    pieces = iter([{"type": "http.request", "body": b"12345", "more_body": True}] * 5)
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

    with pytest.raises(HTTPException) as raised:
        await BodyLimitMiddleware(reader, max_bytes=12)({"type": "http", "headers": []}, receive, send)
    assert raised.value.status_code == 413
    assert read == [5, 5]


def test_body_of_the_largest_size_is_accepted(client: TestClient) -> None:
    body = b'{"text": "a"}'.ljust(MAX_BYTES)
    answer = client.post("/open", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
