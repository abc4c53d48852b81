"""Tokens of a session: their claims, their refresh, and whether they are accepted."""

import base64
import json
from contextlib import suppress
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from testbed.waiting import stretched
from tests.helpers.callers import bearer, call, problem


def claims_of(access_token: str) -> dict[str, Any]:
    """What an access token says, whether it is valid or not."""
    payload = access_token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return claims


def refreshed(http: httpx.Client, tokens: dict[str, Any]) -> dict[str, Any]:
    """The tokens that follow these."""
    following: dict[str, Any] = call(http, "POST", "/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    return following


def refused_refresh(http: httpx.Client, tokens: dict[str, Any]) -> bool:
    """Whether the refresh token is refused."""
    answer = http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    return answer.status_code == 401 and problem(answer)[1] == "refresh_refused"


def assert_active(http: httpx.Client, *tokens: dict[str, Any]) -> None:
    """Every access token is accepted."""
    statuses = [http.get("/auth/me", headers=bearer(one["access_token"])).status_code for one in tokens]
    assert statuses == [200] * len(tokens)


def assert_ended(http: httpx.Client, *tokens: dict[str, Any]) -> None:
    """No access token is accepted, and no refresh token."""
    for one in tokens:
        assert problem(http.get("/auth/me", headers=bearer(one["access_token"])))[:2] == (401, "unauthenticated")
    assert all(refused_refresh(http, one) for one in tokens)


def closed_with(socket: ClientConnection) -> int | None:
    """The code with which a WebSocket is closed, after whatever events are still in it; None if it stays open."""
    with suppress(TimeoutError, ConnectionClosed):
        while True:
            socket.recv(timeout=stretched(5))
    return socket.close_code
