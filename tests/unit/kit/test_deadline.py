"""The response to a request that takes too long."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optiinfra.kit import tasks
from optiinfra.kit.deadline import DeadlineMiddleware
from tests.unit.logs import logged

pytestmark = pytest.mark.anyio


LONG, SHORT = 30.0, 0.05


def start_request_that_ends_slowly() -> tuple["asyncio.Task[None]", list[Message], asyncio.Event]:
    """A request past its deadline, the messages that answer it, and the event that lets its handler end."""
    sent: list[Message] = []
    release = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()  # like a client that first ends its query on the server
            raise

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    return asyncio.create_task(DeadlineMiddleware(app, SHORT)(scope, receive, send)), sent, release


async def call(handler: Callable[[], Awaitable[object]], path: str = "/x", seconds: float = LONG) -> httpx.Response:
    app = FastAPI()
    app.add_api_route(path, handler, response_model=None)
    app.add_middleware(DeadlineMiddleware, seconds=seconds, long_calls=("GET /.*/commands",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
        return await http.get(path)


async def call_plain(app: ASGIApp) -> httpx.Response:
    """The response of an application that begins in the moment in which its deadline does, however slow the machine."""
    transport = httpx.ASGITransport(DeadlineMiddleware(app, SHORT))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        return await http.get("/x")


async def test_deadline_exceeded_answers_503_and_cancels_handler() -> None:
    ended = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    answer = await call_plain(app)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "no answer within" in answer.json()["detail"]
    async with asyncio.timeout(5):
        await ended.wait()


async def test_deadline_of_long_call_is_later() -> None:
    async def handler() -> dict[str, str]:
        await asyncio.sleep(2 * SHORT)
        return {"came": "late"}

    assert (await call(handler, "/agent-runtime/r/commands", SHORT)).json() == {"came": "late"}
    assert (await call(handler, seconds=SHORT)).status_code == 503


async def test_deadline_does_not_end_started_response() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(4 * SHORT)
        await send({"type": "http.response.body", "body": b"late"})

    assert (await call_plain(app)).text == "late"


async def test_deadline_exceeded_answers_before_the_handler_has_ended() -> None:
    request, sent, release = start_request_that_ends_slowly()
    await asyncio.wait((request,), timeout=4 * SHORT)
    assert not request.done()
    assert [message.get("status") for message in sent] == [503, None]
    release.set()
    await request
    assert len(sent) == 2


async def test_request_cancelled_after_its_deadline_ends_cancelled() -> None:
    request, sent, _release = start_request_that_ends_slowly()
    await asyncio.wait((request,), timeout=4 * SHORT)
    assert sent
    request.cancel()
    await asyncio.wait((request,), timeout=5)
    assert request.cancelled()


async def test_deadline_exceeded_logs_a_defect_that_ends_the_handler() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("ours") from None

    with logged(tasks) as records:
        assert (await call_plain(app)).status_code == 503
    assert [str(record["exc_info"]) for record in records] == ["ours"]


async def test_handler_exception_is_raised() -> None:
    async def handler() -> None:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        await call(handler)
