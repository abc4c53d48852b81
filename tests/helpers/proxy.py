"""A TCP proxy before a server, to take the server away from who talks to it: in any of the ways in which servers go."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar, get_args

T = TypeVar("T")

Failure = Literal["refused", "reset", "hanging", "slow", "cut"]
"""Refused: nobody listens, and what was open is gone. Reset: taken and closed at once. Hanging: taken, but nothing
passes until it is over. Slow: every piece comes late. Cut: an answer breaks off in the middle."""
FAILURES: tuple[Failure, ...] = get_args(Failure)

HOST = "127.0.0.1"
PIECE = 65536
LATE_SECONDS = 0.3
CALL_SECONDS = 10.0


class Proxy:
    """Passes every connection to `port` on to `target`, both on loopback, until it is told to fail."""

    def __init__(self, target: int, port: int) -> None:
        self.target, self.port = target, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {target}", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._failure: Failure | None = None
        self._passing = asyncio.Event()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        """Close everything."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    @contextmanager
    def failing(self, how: Failure) -> Iterator[None]:
        """Fail like that, and be well again afterwards."""
        self._run(self._fail(how))
        try:
            yield
        finally:
            self._run(self._heal())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _listen(self) -> None:
        self._passing.set()
        self._server = await asyncio.start_server(self._take, HOST, self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            _reset(writer)
        self._passing.set()

    async def _fail(self, how: Failure) -> None:
        self._failure = how
        if how == "hanging":
            self._passing.clear()
        elif how == "refused":
            await self._close()
        elif how == "reset":
            for writer in list(self._open):
                _reset(writer)

    async def _heal(self) -> None:
        self._failure = None
        self._passing.set()
        if self._server is None:
            await self._listen()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._failure == "reset":
                return
            await self._passing.wait()
            with suppress(OSError):
                theirs, ours = await asyncio.open_connection(HOST, self.target)
                self._open.add(ours)
                try:
                    ends = [
                        asyncio.ensure_future(self._pass(reader, ours, answer=False)),
                        asyncio.ensure_future(self._pass(theirs, writer, answer=True)),
                    ]
                    # When either side is done the other has nobody left to talk to.
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    for end in ends:
                        end.cancel()
                    await asyncio.gather(*ends, return_exceptions=True)
                finally:
                    self._open.discard(ours)
                    ours.close()
        finally:
            self._open.discard(writer)
            if self._failure in ("reset", "cut", "refused"):
                _reset(writer)
            else:
                writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: bool) -> None:
        while piece := await reader.read(PIECE):
            await self._passing.wait()
            if self._failure == "slow":
                await asyncio.sleep(LATE_SECONDS)
            if self._failure == "cut" and answer:
                writer.write(piece[: len(piece) // 2])
                await writer.drain()
                return
            writer.write(piece)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection as a crashed machine does: with RST, and without sending what is left."""
    with suppress(OSError):
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def proxy_to(target: int, port: int) -> Iterator[Proxy]:
    """A running proxy from one port of loopback to another."""
    proxy = Proxy(target, port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
