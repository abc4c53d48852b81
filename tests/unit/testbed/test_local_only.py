"""Requests that servers without credentials refuse."""

import asyncio
from typing import Any

import pytest

from testbed import local_only


@pytest.mark.parametrize(
    ("host", "origin", "local"),
    [
        ("127.0.0.1:4567", None, True),
        ("localhost", None, True),
        ("[::1]:4567", None, True),
        ("127.0.0.1:4567", "http://localhost:3001", True),
        (None, None, False),
        ("", None, False),
        ("rebound.example:4567", None, False),
        ("127.0.0.1.example", None, False),
        ("[", None, False),
        ("127.0.0.1:4567", "https://page.example", False),
        ("127.0.0.1:4567", "null", False),
        ("127.0.0.1:4567", "http://[", False),
    ],
)
def test_request_of_a_web_page_is_refused(host: str | None, origin: str | None, local: bool) -> None:
    headers = {name: value for name, value in (("host", host), ("origin", origin)) if value is not None}
    expected = (200, b"app") if local else (403, local_only.REFUSAL)
    assert local_only.is_local(host, origin) is local
    assert over_wsgi(headers) == expected
    assert over_asgi(headers) == expected


@pytest.mark.parametrize(("names", "local"), [("sandbox.e2e,172.30.0.1", True), ("", False), (None, False)])
def test_added_names_are_local(monkeypatch: pytest.MonkeyPatch, names: str | None, local: bool) -> None:
    if names is not None:
        monkeypatch.setenv(local_only.NAMES_VARIABLE, names)
    assert local_only.is_local("172.30.0.1:40001", None) is local
    assert local_only.is_local("sandbox.e2e:8022", None) is local
    assert local_only.is_local("", None) is False


def over_wsgi(headers: dict[str, str]) -> tuple[int, bytes]:
    statuses: list[str] = []

    def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"app"]

    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    (body,) = local_only.wsgi(app)(environ, lambda status, _headers: statuses.append(status))
    return int(statuses[0][:3]), body


def over_asgi(headers: dict[str, str]) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"app"})

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(local_only.asgi(app)({"type": "http", "headers": encoded}, None, send))
    return sent[0]["status"], sent[1]["body"]
