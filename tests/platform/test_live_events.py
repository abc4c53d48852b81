"""Live events over a WebSocket: for the customer's own users, who say from where on."""

import json

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from testbed.waiting import stretched
from tests.helpers.callers import Caller


def live(http: httpx.Client, rest: str, *tokens: str | None) -> ClientConnection:
    """A connection to a customer's live events, on which tokens are offered."""
    address = f"{str(http.base_url).replace('http', 'ws', 1).rstrip('/')}/ws/customers/{rest}"
    return connect(address, subprotocols=["optiinfra.v1", *(f"bearer.{token}" for token in tokens)])  # type: ignore[list-item]


@pytest.mark.parametrize("tokens", [[], ["garbage"], ["a.b.c"], [""]])
def test_without_a_valid_token_it_is_refused(http: httpx.Client, user: Caller, tokens: list[str]) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        live(http, user.ids["customer_id"], *tokens)


@pytest.mark.parametrize("after", ["-1", "x", "9" * 30])
def test_who_asks_for_nonsense_is_refused(http: httpx.Client, user: Caller, after: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        live(http, f"{user.ids['customer_id']}?after={after}", user.token)


def test_nobody_elses_events_are_shown(http: httpx.Client, user: Caller) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        live(http, "cust_000000000000000000000000", user.token)


def test_what_the_customer_says_is_not_for_us(http: httpx.Client, user: Caller) -> None:
    mine = user.ids["customer_id"]
    with live(http, mine, user.token) as stream:
        assert stream.subprotocol == "optiinfra.v1"
        stream.send("{")
        stream.send(b"\x00" * 100_000)
        body = {"agent_type": "resource"}
        assert http.post(f"/customers/{mine}/analyze", headers=user.headers, json=body).status_code == 202
        assert json.loads(stream.recv(timeout=stretched(10)))["event_type"] == "analysis_started"
