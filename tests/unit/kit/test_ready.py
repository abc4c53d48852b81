"""Whether a service says what it misses, in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from optiinfra.kit import app as kit
from optiinfra.kit.auth import Principal
from optiinfra.stores.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def nobody(_connection: HTTPConnection) -> Principal | None:
    return None


async def ready(**checks: kit.Check) -> httpx.Response:
    app = kit.create_app("tried", "1", lifespan=nothing, authenticate=nobody, checks=checks)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://tried") as http:
        return await http.get("/ready")


async def test_each_dependency_is_named_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = asyncio.Event()

    async def there() -> None:
        """Answers."""

    async def away() -> None:
        raise StoreUnavailable("Redis does not answer (ConnectionError)")

    async def secretive() -> None:
        raise OSError("10.0.0.7 refused")

    async def hanging() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await let_go.wait()  # as a client that tries to end its query on the server first
            raise

    monkeypatch.setattr(kit, "CHECK_SECONDS", 0.05)
    asking = asyncio.ensure_future(ready(there=there, away=away, secretive=secretive, hanging=hanging))
    await asyncio.wait((asking,), timeout=5)
    in_time = asking.done()
    let_go.set()
    answer = await asking

    assert in_time
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "there": "ok",
        "away": "Redis does not answer (ConnectionError)",
        "secretive": "OSError",
        "hanging": "no answer within 0 s",
    }


async def test_with_all_of_them_it_is_ready() -> None:
    async def there() -> None:
        """Answers."""

    answer = await ready(there=there)
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
