"""Every call has an answer: a lost store is said, and so is that nothing came in time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from optiinfra.kit.deadline import DeadlineMiddleware
from optiinfra.stores.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


LONG, SHORT = 30.0, 0.05


async def call(handler: Callable[[], Awaitable[object]], path: str = "/x", seconds: float = LONG) -> httpx.Response:
    app = FastAPI()
    app.add_api_route(path, handler, response_model=None)
    app.add_middleware(DeadlineMiddleware, seconds=seconds, long_calls=("GET /.*/commands",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
        return await http.get(path)


async def test_a_lost_store_is_named_and_worth_another_try() -> None:
    async def handler() -> None:
        raise StoreUnavailable("PostgreSQL does not answer (OperationalError)")

    answer = await call(handler)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert "PostgreSQL" in answer.json()["detail"]


async def test_what_takes_too_long_is_answered_for_and_ended() -> None:
    ended = asyncio.Event()

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    answer = await call(handler, seconds=SHORT)
    assert answer.status_code == 503
    assert "no answer within" in answer.json()["detail"]
    async with asyncio.timeout(5):
        await ended.wait()


async def test_who_asked_to_wait_is_let_wait() -> None:
    async def handler() -> dict[str, str]:
        await asyncio.sleep(2 * SHORT)
        return {"came": "late"}

    assert (await call(handler, "/agent-runtime/r/commands", SHORT)).json() == {"came": "late"}
    assert (await call(handler, seconds=SHORT)).status_code == 503


async def test_an_answer_that_has_begun_may_take_its_time() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"piece "
            await asyncio.sleep(0.3)

    async def handler() -> StreamingResponse:
        return StreamingResponse(pieces())

    assert (await call(handler, seconds=0.6)).text == "piece " * 4


async def test_a_defect_is_still_a_defect() -> None:
    async def handler() -> None:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        await call(handler)
