"""What the audit log records of requests that get no ordinary answer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from optiinfra.orchestrator.audit import middleware, service
from optiinfra.orchestrator.audit.chain import Entry
from optiinfra.stores.errors import StoreUnavailable
from tests.unit.logs import logged

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Action and status of each entry."""
    entries: list[tuple[str, int]] = []

    async def append(_platform: Any, _chain: str, entry: Entry) -> None:
        entries.append((entry.action, entry.status))

    monkeypatch.setattr(service, "append", append)
    return entries


async def send_request(handler: Any, method: str = "POST", path: str = "/things") -> BaseException | None:
    """What the request raises."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await handler(send)

    async def ignore(_message: Any) -> None:
        """Nobody reads the answer."""

    platform = SimpleNamespace(settings=SimpleNamespace(audit_key="k" * 48, portal_secret="p" * 48))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [],
        "client": ("127.0.0.1", 1),
        "app": SimpleNamespace(state=SimpleNamespace(platform=platform)),
    }
    try:
        await middleware.AuditMiddleware(app)(scope, ignore, ignore)  # type: ignore[arg-type]
    except (Exception, asyncio.CancelledError) as error:
        return error
    return None


def failing(error: BaseException) -> Any:
    async def handler(_send: Send) -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("a defect"), 500),
        (StoreUnavailable("Qdrant does not answer"), 503),
        (asyncio.CancelledError(), 503),
    ],
)
async def test_change_that_fails_is_recorded_with_the_status_of_its_answer(
    recorded: list[tuple[str, int]], error: BaseException, status: int
) -> None:
    assert await send_request(failing(error)) is error
    await asyncio.sleep(0)  # lets the entry of a request that took too long be written
    assert recorded == [("POST /things", status)]


async def test_read_and_machine_report_that_fail_are_not_recorded(recorded: list[tuple[str, int]]) -> None:
    await send_request(failing(RuntimeError("a defect")), "GET")
    await send_request(failing(RuntimeError("a defect")), path="/agent-runtime/r/telemetry")
    assert recorded == []


async def test_change_that_fails_after_its_answer_began_is_recorded_once(recorded: list[tuple[str, int]]) -> None:
    async def answer_and_fail(send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        raise RuntimeError("too late")

    assert isinstance(await send_request(answer_and_fail), RuntimeError)
    assert recorded == [("POST /things", 201)]


async def test_entry_that_cannot_be_written_is_logged_and_the_first_error_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def append(*_arguments: Any) -> None:
        raise StoreUnavailable("PostgreSQL does not answer")

    monkeypatch.setattr(service, "append", append)
    first = StoreUnavailable("Redis does not answer")
    with logged(middleware) as logs:
        assert await send_request(failing(first)) is first
    assert [entry["event"] for entry in logs] == ["audit entry lost"]
