"""A TCP proxy that makes the server behind it unavailable in several ways."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar, get_args

T = TypeVar("T")

Failure = Literal["refused", "reset", "hanging", "slow", "cut"]
"""Refused: nothing listens, open connections are closed. Reset: connections are accepted and reset at once. Hanging:
connections are accepted, but no data passes until the failure ends. Slow: all data is delayed. Cut: responses end
in the middle."""
FAILURES: tuple[Failure, ...] = get_args(Failure)

HOST = "127.0.0.1"
CHUNK_BYTES = 65536
DELAY_SECONDS = 0.3
CALL_SECONDS = 10.0


class Proxy:
    """Forwards every connection from `port` to `target` of loopback, except while it is failing.

    It listens on loopback and on `host`, which containers reach.
    """

    def __init__(self, target: int, port: int, host: str = HOST) -> None:
        self.target, self.port, self.host = target, port, host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {target}", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._failure: Failure | None = None
        self._passing = asyncio.Event()

    def start(self) -> None:
        """Start to listen."""
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        """Close the listener and all connections."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    @contextmanager
    def failing(self, failure: Failure) -> Iterator[None]:
        """Fail in this way inside the context."""
        self._run(self._fail(failure))
        try:
            yield
        finally:
            self._run(self._recover())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _listen(self) -> None:
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, sorted({HOST, self.host}), self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            _reset(writer)
        self._passing.set()

    async def _fail(self, failure: Failure) -> None:
        self._failure = failure
        if failure == "hanging":
            self._passing.clear()
        elif failure == "refused":
            await self._close()
        elif failure == "reset":
            for writer in list(self._writers):
                _reset(writer)

    async def _recover(self) -> None:
        self._failure = None
        self._passing.set()
        if self._server is None:
            await self._listen()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._failure == "reset":
                return
            await self._passing.wait()
            with suppress(OSError):
                upstream_reader, upstream_writer = await asyncio.open_connection(HOST, self.target)
                self._writers.add(upstream_writer)
                try:
                    ends = [
                        asyncio.ensure_future(self._forward(reader, upstream_writer, is_response=False)),
                        asyncio.ensure_future(self._forward(upstream_reader, writer, is_response=True)),
                    ]
                    # When one direction ends, the other one is of no use.
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    for end in ends:
                        end.cancel()
                    await asyncio.gather(*ends, return_exceptions=True)
                finally:
                    self._writers.discard(upstream_writer)
                    upstream_writer.close()
        finally:
            self._writers.discard(writer)
            if self._failure in ("reset", "cut", "refused"):
                _reset(writer)
            else:
                writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_response: bool) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._passing.wait()
            if self._failure == "slow":
                await asyncio.sleep(DELAY_SECONDS)
            if self._failure == "cut" and is_response:
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                return
            writer.write(chunk)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST, without sending buffered data, as after a crash."""
    with suppress(OSError):
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def proxy_to(target: int, port: int, host: str = HOST) -> Iterator[Proxy]:
    """A running proxy to a port of loopback."""
    proxy = Proxy(target, port, host)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
