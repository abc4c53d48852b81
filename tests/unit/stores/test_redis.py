"""Redis connections that preserve cancellation and report a lost transport."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from optiinfra.stores.redis import Connection, SSLConnection, connect


class Unconnected(Connection):
    """A connection without a socket: a write fails with `failure`, if any, and cancels its sender if told so."""

    is_connected = True

    def __init__(self, failure: Exception | None, *, cancelling: bool) -> None:
        super().__init__(socket_timeout=5)
        self.failure, self.cancelling = failure, cancelling
        self._writer = cast("Any", self)

    def writelines(self, command: Iterable[bytes]) -> None:
        if self.cancelling:
            self.sender.cancel()
        if self.failure is not None:
            raise self.failure

    async def drain(self) -> None:
        """Everything is written."""

    async def disconnect(self, *_: object, **__: object) -> None:
        self.is_connected = False

    async def sent(self) -> str:
        """Send in a task; `sent`, or the name of the exception it ended with."""
        self.sender = asyncio.ensure_future(self.send_packed_command(b"PING", check_health=False))
        (seen,) = await asyncio.gather(self.sender, return_exceptions=True)
        return "sent" if seen is None else type(seen).__name__


@pytest.mark.parametrize("failure", [None, OSError("reset"), RuntimeError("unable to perform operation")])
def test_send_cancelled_as_it_ends_raises_cancelled_error(failure: Exception | None) -> None:
    connection = Unconnected(failure, cancelling=True)
    assert asyncio.run(connection.sent()) == "CancelledError"
    assert not connection.is_connected, "the next command would read the response to this one"


def test_send_on_closed_transport_raises_connection_error() -> None:
    connection = Unconnected(RuntimeError("the handler is closed"), cancelling=False)
    assert asyncio.run(connection.sent()) == "ConnectionError"
    assert not connection.is_connected


def test_send_keeps_the_connection() -> None:
    connection = Unconnected(None, cancelling=False)
    assert asyncio.run(connection.sent()) == "sent"
    assert connection.is_connected


@pytest.mark.parametrize(("scheme", "wanted"), [("redis", Connection), ("rediss", SSLConnection)])
def test_connect_makes_connections_of_our_class(scheme: str, wanted: type[Connection]) -> None:
    pool = connect(f"{scheme}://:secret@127.0.0.1:1/0").connection_pool
    assert type(pool.make_connection()) is wanted  # type: ignore[no-untyped-call]
