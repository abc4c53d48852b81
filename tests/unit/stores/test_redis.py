"""The client of Redis as we use it."""

import asyncio
from collections.abc import Iterable

import pytest

from optiinfra.stores.redis import Connection


class CancelledAsItEnds(Connection):
    """Connected to nothing; the task that sends is cancelled in the very moment in which all is sent."""

    sender: "asyncio.Task[str]"
    is_connected = True

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        self.sender.cancel()

    async def disconnect(self, *_: object, **__: object) -> None:
        self.is_connected = False


def test_a_task_that_is_cancelled_just_as_it_has_sent_does_not_go_on() -> None:
    connection = CancelledAsItEnds(socket_timeout=5)

    async def send() -> str:
        await connection.send_packed_command(b"PING", check_health=False)
        return "went on"

    async def cancelled() -> str:
        connection.sender = asyncio.ensure_future(send())
        return await connection.sender

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert not connection.is_connected, "the next command would read this one's answer"
