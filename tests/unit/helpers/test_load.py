"""The load that performance tests put on a service."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.helpers.load import Connection, load

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
FAILED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 6\r\n\r\nbroken"


class Service:
    """Answers each path as told, and keeps the requests."""

    def __init__(self) -> None:
        self.answers = {"/good": OK, "/bad": FAILED, "/closed": b""}
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            try:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            self.requests.append(request)
            answer = self.answers[request.split()[1]]
            if not answer:
                break
            writer.write(answer[:30])
            await writer.drain()
            writer.write(answer[30:])
        writer.close()


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def url(service: Service) -> AsyncIterator[str]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_connection_sends_its_token_and_returns_status_and_body(service: Service, url: str) -> None:
    connection = await Connection.open(url, "secret")
    assert await connection.get("/good") == (200, b"fine")
    assert await connection.get("/bad") == (503, b"broken")
    connection.close()
    assert ["Authorization: Bearer secret\r\n" in request for request in service.requests] == [True, True]


async def test_load_counts_every_answer_and_keeps_errors(service: Service, url: str) -> None:
    connections = [await Connection.open(url) for _ in range(3)]
    done = await load(connections, ["/good", "/bad"], 0.1)
    for connection in connections:
        connection.close()
    assert done.answers == len(service.requests) >= 3
    asked_for = [request.split()[1] for request in service.requests]
    assert done.errors == ["/bad: 503 broken"] * asked_for.count("/bad")
    assert abs(asked_for.count("/bad") - asked_for.count("/good")) <= 1
    assert done.per_second == done.answers / done.seconds


async def test_connection_that_the_service_closes_fails(url: str) -> None:
    connection = await Connection.open(url)
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="closed the connection"):
            await connection.get("/closed")
