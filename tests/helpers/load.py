"""HTTP load with little work of its own: keep-alive connections on raw sockets, each sending its next request at once.

An ordinary client takes longer for a request than the service that is measured.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast
from urllib.parse import urlsplit

import httptools

_ANSWER_SECONDS = 30.0


@dataclass
class Load:
    """What came back: answers within `seconds`, and those that were no success, as `path: status body`."""

    seconds: float = 0.0
    answers: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds

    def add(self, other: "Load") -> None:
        """Add what came back later."""
        self.seconds += other.seconds
        self.answers += other.answers
        self.errors += other.errors


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self, host: str, token: str | None) -> None:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._headers = f" HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n".encode()
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, url: str, token: str | None = None) -> "Connection":
        """Connect to the host and port of a URL."""
        address = urlsplit(url)
        host, port = address.hostname, address.port
        assert host is not None and port is not None, f"{url} names no host or no port"  # noqa: PT018
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(address.netloc, token), host, port)
        return connection

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer to a GET request. Raises TimeoutError, or ConnectionError if it is closed."""
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionResetError("the server closed the connection before the request")
        self._parser, self._body = httptools.HttpResponseParser(self), b""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(b"GET " + path.encode() + self._headers)
        async with asyncio.timeout(_ANSWER_SECONDS):
            await self._answered
        return self._parser.get_status_code(), self._body

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio.Protocol."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        """httptools."""
        self._body += body

    def on_message_complete(self) -> None:
        """httptools."""
        assert self._answered is not None
        if not self._answered.done():
            self._answered.set_result(None)


async def load(connections: Iterable[Connection], paths: Iterable[str], seconds: float) -> Load:
    """Request the paths in turn, on all connections at once, for some seconds."""
    done, paths = Load(), cycle(paths)
    began = time.perf_counter()
    await asyncio.gather(*(_repeat(each, paths, began + seconds, done) for each in connections))
    done.seconds = time.perf_counter() - began
    return done


async def _repeat(connection: Connection, paths: Iterator[str], until: float, done: Load) -> None:
    while time.perf_counter() < until:
        path = next(paths)
        status, body = await connection.get(path)
        done.answers += 1
        if status != 200:
            done.errors.append(f"{path}: {status} {body[:300].decode(errors='replace')}")
