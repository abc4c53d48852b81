"""The client of Redis as we use it."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from optiinfra.stores.redis import Connection, SSLConnection, connect


class Unconnected(Connection):
    """Connected to nothing: what is sent ends as it was told to, the sender cancelled or not in that very moment."""

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
        """All of it is sent."""

    async def disconnect(self, *_: object, **__: object) -> None:
        self.is_connected = False

    async def sent(self) -> str:
        """What a task sees that sends."""
        self.sender = asyncio.ensure_future(self.send_packed_command(b"PING", check_health=False))
        (seen,) = await asyncio.gather(self.sender, return_exceptions=True)
        return "sent" if seen is None else type(seen).__name__


@pytest.mark.parametrize("failure", [None, OSError("reset"), RuntimeError("unable to perform operation")])
def test_a_task_that_is_cancelled_just_as_it_has_sent_does_not_go_on(failure: Exception | None) -> None:
    connection = Unconnected(failure, cancelling=True)
    assert asyncio.run(connection.sent()) == "CancelledError"
    assert not connection.is_connected, "the next command would read this one's answer"


def test_a_connection_that_died_unnoticed_is_lost_as_any_other() -> None:
    connection = Unconnected(RuntimeError("the handler is closed"), cancelling=False)
    assert asyncio.run(connection.sent()) == "ConnectionError"
    assert not connection.is_connected


def test_what_is_sent_is_sent() -> None:
    connection = Unconnected(None, cancelling=False)
    assert asyncio.run(connection.sent()) == "sent"
    assert connection.is_connected


@pytest.mark.parametrize(("scheme", "wanted"), [("redis", Connection), ("rediss", SSLConnection)])
def test_every_connection_is_of_our_kind(scheme: str, wanted: type[Connection]) -> None:
    pool = connect(f"{scheme}://:secret@127.0.0.1:1/0").connection_pool
    assert type(pool.make_connection()) is wanted  # type: ignore[no-untyped-call]
