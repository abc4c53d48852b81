"""The response to a request that fails because a store is unavailable."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from optiinfra.kit.store_outage import StoreOutageMiddleware
from optiinfra.stores.errors import StoreUnavailable

pytestmark = pytest.mark.anyio

OUTAGE = "PostgreSQL does not answer (OperationalError)"


async def call(handler: Callable[[], Awaitable[object]]) -> httpx.Response:
    app = FastAPI()
    app.add_api_route("/x", handler, response_model=None)
    app.add_middleware(StoreOutageMiddleware)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
        return await http.get("/x")


async def test_store_outage_before_response_answers_503_with_retry_after() -> None:
    async def handler() -> None:
        raise StoreUnavailable(OUTAGE)

    answer = await call(handler)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:optiinfra:problem:store_unavailable"
    assert "PostgreSQL" in answer.json()["detail"]


async def test_store_outage_after_response_started_is_raised() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"
        raise StoreUnavailable(OUTAGE)

    async def handler() -> StreamingResponse:
        return StreamingResponse(pieces())

    with pytest.raises(StoreUnavailable, match="PostgreSQL"):
        await call(handler)


async def test_other_exception_is_raised() -> None:
    async def handler() -> None:
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        await call(handler)
