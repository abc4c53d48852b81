"""Bulkheads: places for each key, waiting in order, and keys that are forgotten."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from optiinfra.kit.bulkhead import Bulkhead, BulkheadMiddleware

pytestmark = pytest.mark.anyio


async def settle() -> None:
    """Let every task run until it waits for another one."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_place_above_the_limit_waits_until_another_is_free() -> None:
    bulkhead, free, held = Bulkhead(2), asyncio.Event(), list[int]()

    async def hold(number: int) -> None:
        async with bulkhead.place("cust_1"):
            held.append(number)
            await free.wait()

    tasks = [asyncio.create_task(hold(number)) for number in range(3)]
    await settle()
    assert held == [0, 1]
    tasks[0].cancel()
    await settle()
    assert held == [0, 1, 2]
    free.set()
    await asyncio.wait(tasks)


async def test_place_of_another_key_is_free() -> None:
    bulkhead, held = Bulkhead(1), list[str]()

    async def hold_both() -> None:
        async with bulkhead.place("cust_1"), bulkhead.place("cust_2"):
            held.append("both")

    task = asyncio.create_task(hold_both())
    await settle()
    assert held == ["both"]
    await task


async def test_key_is_forgotten_when_nobody_holds_its_place() -> None:
    bulkhead = Bulkhead(1)
    async with bulkhead.place("cust_1"):
        assert list(bulkhead._places) == ["cust_1"]
    gc.collect()
    assert list(bulkhead._places) == []


async def run_middleware(scope: dict[str, str], *sent: str) -> list[str]:
    """What happens while an app sends messages of these types."""
    happened: list[str] = []

    @asynccontextmanager
    async def admit(_connection: HTTPConnection) -> AsyncIterator[None]:
        happened.append("admitted")
        yield
        happened.append("left")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for each in sent:
            await send({"type": each})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        happened.append(message["type"])

    await BulkheadMiddleware(app, admit, ["GET /slow/[^/]+"])(scope, receive, send)
    return happened


async def test_middleware_request_keeps_its_place_until_it_is_answered() -> None:
    scope = {"type": "http", "method": "GET", "path": "/slow"}
    assert await run_middleware(scope, "http.response.start") == ["admitted", "http.response.start", "left"]


async def test_middleware_long_call_needs_no_place() -> None:
    scope = {"type": "http", "method": "GET", "path": "/slow/poll"}
    assert await run_middleware(scope, "http.response.start") == ["http.response.start"]


async def test_middleware_stream_gives_its_place_back_once_accepted() -> None:
    happened = await run_middleware({"type": "websocket", "path": "/ws"}, "websocket.accept", "websocket.send")
    assert happened == ["admitted", "left", "websocket.accept", "websocket.send"]


async def test_middleware_refused_stream_keeps_its_place_until_its_end() -> None:
    happened = await run_middleware({"type": "websocket", "path": "/ws"}, "websocket.close")
    assert happened == ["admitted", "websocket.close", "left"]
