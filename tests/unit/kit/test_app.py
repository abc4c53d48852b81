"""Readiness, redirects and shutdown of a service."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from optiinfra.kit import app as kit
from optiinfra.kit.app import cancel_on_shutdown
from optiinfra.kit.auth import Principal
from optiinfra.stores.errors import StoreUnavailable
from testbed.waiting import wait_until
from tests.unit.kit.service import problem_detail


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def authenticate(_connection: HTTPConnection) -> Principal | None:
    return None


async def get_ready(**checks: kit.Check) -> httpx.Response:
    app = kit.create_app("test", "1", lifespan=lifespan, authenticate=authenticate, checks=checks)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        return await http.get("/ready")


def test_trailing_slash_is_not_redirected_to_the_host_header(client: TestClient) -> None:
    answer = client.get("/notes/", headers={"Host": "elsewhere.example"}, follow_redirects=False)
    problem_detail(answer, 404, "not_found")


def test_response_is_kept_by_no_cache_and_its_type_is_not_guessed(client: TestClient) -> None:
    for answer in (client.post("/open", json={"text": "a"}), client.get("/nothing"), client.get("/notes")):
        assert answer.headers.get("cache-control") == "no-store"
        assert answer.headers.get("x-content-type-options") == "nosniff"


def test_ready_shows_outages_without_internals(client: TestClient) -> None:
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "db": "PostgreSQL does not answer (OperationalError)",
        "peer": "ConnectionError",
    }


@pytest.mark.anyio
async def test_ready_names_the_state_of_each_dependency_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()

    async def ok() -> None:
        """Answers."""

    async def unavailable() -> None:
        raise StoreUnavailable("Redis does not answer (ConnectionError)")

    async def failing() -> None:
        raise OSError("10.0.0.7 refused")

    async def hanging() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()  # like a client that first ends its query on the server
            raise

    monkeypatch.setattr(kit, "CHECK_SECONDS", 0.05)
    request = asyncio.ensure_future(get_ready(ok=ok, unavailable=unavailable, failing=failing, hanging=hanging))
    await asyncio.wait((request,), timeout=5)
    in_time = request.done()
    release.set()
    answer = await request

    assert in_time
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "ok": "ok",
        "unavailable": "Redis does not answer (ConnectionError)",
        "failing": "OSError",
        "hanging": "no answer within 0 s",
    }


@pytest.mark.anyio
async def test_ready_with_all_dependencies_answers_200() -> None:
    async def ok() -> None:
        """Answers."""

    answer = await get_ready(ok=ok)
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")


def test_served_application_freezes_what_it_has_loaded() -> None:
    frozen: list[int] = []

    async def interrupt_when_frozen() -> None:
        try:
            frozen.append(await asyncio.to_thread(wait_until, gc.get_freeze_count, "frozen objects", 10))
        finally:
            signal.raise_signal(signal.SIGINT)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        interrupting = asyncio.create_task(interrupt_when_frozen())
        yield
        await interrupting

    assert gc.get_freeze_count() == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            kit.serve(kit.create_app("test", "1", lifespan=lifespan, authenticate=authenticate), "127.0.0.1", 0)
    finally:
        signal.signal(signal.SIGINT, before)
        gc.unfreeze()
    assert frozen


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    app.state.shutdown = asyncio.Event()
    return app


async def work_forever(ended: list[str]) -> str:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("cancelled")
    return "never"


@pytest.mark.anyio
async def test_cancel_on_shutdown_returns_result(app: FastAPI) -> None:
    async def work() -> str:
        return "done"

    assert await cancel_on_shutdown(app, work(), default="stopping") == "done"


@pytest.mark.anyio
async def test_cancel_on_shutdown_raises_exception_of_the_work(app: FastAPI) -> None:
    async def work() -> str:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await cancel_on_shutdown(app, work(), default="stopping")


@pytest.mark.anyio
async def test_cancel_on_shutdown_at_shutdown_cancels_work_and_returns_default(app: FastAPI) -> None:
    ended: list[str] = []
    waiting = asyncio.create_task(cancel_on_shutdown(app, work_forever(ended), default="stopping"))
    asyncio.get_running_loop().call_soon(app.state.shutdown.set)
    assert await asyncio.wait_for(waiting, 5) == "stopping"
    assert ended == ["cancelled"]


@pytest.mark.anyio
async def test_cancel_on_shutdown_when_cancelled_cancels_work(app: FastAPI) -> None:
    ended: list[str] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cancel_on_shutdown(app, work_forever(ended), default="stopping"), 0.01)
    assert ended == ["cancelled"]
