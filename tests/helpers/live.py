"""A customer's live events, as the API's WebSocket and the portal's server-sent events deliver them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from optiinfra.api.events import SUBPROTOCOL, bearer_subprotocol
from testbed.waiting import stretched


def connect_live(orchestrator_url: object, rest: str, *tokens: str | None) -> ClientConnection:
    """A WebSocket to `/ws/customers/{rest}` that offers these tokens."""
    address = f"{str(orchestrator_url).replace('http', 'ws', 1).rstrip('/')}/ws/customers/{rest}"
    offered = [SUBPROTOCOL, *(bearer_subprotocol(f"{token}") for token in tokens)]
    return connect(address, subprotocols=[Subprotocol(one) for one in offered])


def receive(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """The next `count` events of a WebSocket; fails if they do not come."""
    received: list[dict[str, Any]] = []
    while len(received) < count:
        try:
            received.append(json.loads(socket.recv(timeout=stretched(10))))
        except (TimeoutError, ConnectionClosed) as error:
            raise AssertionError(f"after {len(received)} of {count} events: {error!r}") from error
    return received


@dataclass(frozen=True)
class Sent:
    """One server-sent event: its `id`, its type and its data."""

    id: str
    event: str
    data: dict[str, Any]


@contextmanager
def server_sent(portal: httpx.Client, after: int, last_event_id: int | None = None) -> Iterator[Iterator[Sent]]:
    """The portal's events after a number, for the user whose session the client holds."""
    headers = {"accept": "text/event-stream"}
    if last_event_id is not None:
        headers["last-event-id"] = str(last_event_id)
    with portal.stream("GET", "/events", params={"after": after}, headers=headers, timeout=stretched(20)) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _parsed(answer.iter_lines())


def take(stream: Iterator[Sent], count: int) -> list[Sent]:
    """The next `count` server-sent events; fails if they do not come."""
    try:
        taken = list(islice(stream, count))
    except httpx.TransportError as error:
        raise AssertionError(f"no {count} events: {error!r}") from error
    assert len(taken) == count, f"the stream ended after {len(taken)} of {count} events"
    return taken


def _parsed(lines: Iterator[str]) -> Iterator[Sent]:
    """The events among the lines; comments, and fields without data such as `retry`, are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Sent(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}
