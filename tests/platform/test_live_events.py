"""Live events over a WebSocket, for the customer's own users."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from testbed.waiting import stretched
from tests.helpers.callers import Caller
from tests.helpers.customer import Customer
from tests.helpers.customers import without_estate
from tests.helpers.live import connect_live, receive
from tests.helpers.private_platform import PrivatePlatform


@pytest.mark.parametrize("tokens", [[], ["garbage"], ["a.b.c"], [""]])
def test_live_events_without_a_valid_token_are_refused(http: httpx.Client, user: Caller, tokens: list[str]) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect_live(http.base_url, user.ids["customer_id"], *tokens)


@pytest.mark.parametrize("after", ["-1", "x", "9" * 30])
def test_live_events_after_an_invalid_number_are_refused(http: httpx.Client, user: Caller, after: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect_live(http.base_url, f"{user.ids['customer_id']}?after={after}", user.token)


def test_live_events_of_another_customer_are_refused(http: httpx.Client, user: Caller) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect_live(http.base_url, "cust_000000000000000000000000", user.token)


def test_live_events_continue_when_the_client_sends_data(http: httpx.Client, user: Caller) -> None:
    mine = user.ids["customer_id"]
    with connect_live(http.base_url, mine, user.token) as stream:
        assert stream.subprotocol == "optiinfra.v1"
        stream.send("{")
        stream.send(b"\x00" * 100_000)
        body = {"agent_type": "resource"}
        assert http.post(f"/customers/{mine}/analyze", headers=user.headers, json=body).status_code == 202
        assert json.loads(stream.recv(timeout=stretched(10)))["event_type"] == "analysis_started"


def test_live_events_of_customers_that_connect_at_once_are_their_own(private_platform: PrivatePlatform) -> None:
    """Streams share what they read while another read is in progress, and all wait for their first event."""
    document = private_platform.document

    def first_event(customer: Customer) -> dict[str, Any]:
        token = customer.http.headers["Authorization"].removeprefix("Bearer ")
        with connect_live(document["urls"]["orchestrator"], customer.id, token) as stream:
            (event,) = receive(stream, 1)
            return event

    with without_estate(document) as one, without_estate(document) as other, ThreadPoolExecutor(6) as pool:
        started = [each.start_analysis("cost") for each in (one, other)]
        with private_platform.proxies["postgresql"].failing("slow"):  # both read meanwhile
            events = list(pool.map(first_event, [one, other] * 3))
        assert [event["payload"]["analysis_id"] for event in events] == started * 3
