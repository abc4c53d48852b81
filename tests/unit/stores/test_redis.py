"""The client of Redis as we use it."""

import asyncio
from collections.abc import Iterable

import pytest

from optiinfra.stores.redis import Connection


class Unconnected(Connection):
    """Connected to nothing: what is sent ends as it was told to, the sender cancelled or not in that very moment."""

    is_connected = True

    def __init__(self, failure: Exception | None, *, cancelling: bool) -> None:
        super().__init__(socket_timeout=5)
        self.failure, self.cancelling = failure, cancelling

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        if self.cancelling:
            self.sender.cancel()
        if self.failure is not None:
            raise self.failure

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


def test_a_connection_that_died_unnoticed_is_lost_in_the_clients_own_words() -> None:
    failure = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    assert asyncio.run(Unconnected(failure, cancelling=False).sent()) == "ConnectionError"


def test_what_is_sent_is_sent() -> None:
    connection = Unconnected(None, cancelling=False)
    assert asyncio.run(connection.sent()) == "sent"
    assert connection.is_connected
