"""Bulkheads: places for each key, waiting in order, and keys that are forgotten."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

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


@pytest.mark.parametrize(
    ("kind", "state", "admitted"),
    [("http", {"principal": "user_1"}, True), ("http", {}, False), ("websocket", {"principal": "user_1"}, False)],
)
async def test_middleware_admits_authenticated_http_requests_only(
    kind: str, state: dict[str, str], *, admitted: bool
) -> None:
    done: list[str] = []

    @asynccontextmanager
    async def admit(_connection: HTTPConnection) -> AsyncIterator[None]:
        done.append("admitted")
        yield
        done.append("left")

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        done.append("answered")

    async def unused(*_: object) -> None:
        raise AssertionError

    await BulkheadMiddleware(app, admit)({"type": kind, "state": state}, unused, unused)  # type: ignore[arg-type]
    assert done == (["admitted", "answered", "left"] if admitted else ["answered"])
