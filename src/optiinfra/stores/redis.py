"""Agent presence and change notifications in Redis. PostgreSQL is the source of truth: losing Redis only adds delay."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from optiinfra.stores.errors import translate_errors

log = structlog.get_logger(__name__)

T = TypeVar("T")

_ANSWER_SECONDS = 1.0
_CONNECTIONS = 400
"""Each waiting reader holds one: a runtime's long poll, an event stream, a step that waits for a command.

Further readers poll. Their own connections to us take as many file descriptors, of which there are often 1024.
"""
_POLL_SECONDS = 2.0
"""How often a waiting reader polls, in case a notification was lost."""


class Connection(redis.Connection):
    """A connection that never swallows a cancellation, and raises RedisError if its transport was closed."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send; raises RedisError on failure."""
        try:
            with _preserve_cancellation():
                await super().send_packed_command(command, check_health)
        except asyncio.CancelledError:
            await self.disconnect(nowait=True)  # nobody will read the answer
            raise

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        try:
            await super()._send_packed_command(command)
        except RuntimeError as error:  # uvloop's error for a closed transport; the client handles OSError only
            raise ConnectionResetError(str(error)) from error


class SSLConnection(Connection, redis.SSLConnection):
    """The same over TLS."""


@contextmanager
def _preserve_cancellation() -> Iterator[None]:
    """Raise CancelledError if the running task was cancelled in this context and the cancellation was swallowed.

    The client sends with `asyncio.wait_for`. Before Python 3.12 that drops a cancellation that arrives just as it ends,
    and the task would carry on.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    except Exception:
        if task.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError


class WakeUp:
    """Notifies waiting readers in any process that PostgreSQL holds something new."""

    def __init__(self, client: "redis.Redis", prefix: str) -> None:
        self._client, self._prefix = client, prefix

    async def ping(self) -> None:
        """Raise StoreUnavailable if the server does not answer."""
        with translate_errors("Redis", outage_reason):
            await self._client.ping()

    async def notify(self, channel: str) -> None:
        """Wake every reader of a channel. While Redis is unavailable readers poll every few seconds."""
        try:
            await self._client.publish(f"{self._prefix}:wake:{channel}", b"")
        except RedisError as error:
            log.warning("notification failed", channel=channel, error=str(error))

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Subscribe, and yield a function that waits for a notification of any channel, for at most the given seconds.

        A notification between two waits is kept: the next wait returns at once. While Redis is unavailable, a wait
        ends after `_POLL_SECONDS`, so that the reader polls.
        """
        async with self._client.pubsub() as subscription:

            async def wait(seconds: float) -> None:
                ends = time.monotonic() + seconds
                try:
                    if not subscription.subscribed:
                        await subscription.subscribe(*names)
                    while (left := ends - time.monotonic()) > 0:
                        message = await subscription.get_message(timeout=left)
                        if message is not None and message["type"] == "message":
                            return
                except RedisError as error:
                    log.warning("subscription failed, polling instead", channels=channels, error=str(error))
                    await asyncio.sleep(min(max(0.0, ends - time.monotonic()), _POLL_SECONDS))

            names = [f"{self._prefix}:wake:{channel}" for channel in channels]
            with contextlib.suppress(RedisError):  # the first wait tries again, and logs
                await subscription.subscribe(*names)
            yield wait

    async def wait_for(self, channel: str, fetch: Callable[[], Awaitable[T | None]], seconds: float) -> T | None:
        """Call `fetch` at each notification until it returns a value; None if it has none within `seconds`."""
        found = await fetch()
        if found is not None or seconds <= 0:
            return found
        ends = time.monotonic() + seconds
        async with self.subscribe(channel) as wait:
            # Fetch again after subscribing: a notification in between would be missed.
            while (found := await fetch()) is None and (left := ends - time.monotonic()) > 0:
                await wait(min(left, _POLL_SECONDS))
        return found


class Presence:
    """Which agents are alive: one key per agent that expires unless it is refreshed."""

    def __init__(self, client: "redis.Redis", prefix: str, seconds: float) -> None:
        self._client, self._prefix, self._milliseconds = client, prefix, int(seconds * 1000)

    async def refresh(self, agent_id: str) -> None:
        """Mark an agent as alive for another period."""
        try:
            await self._client.set(self._key(agent_id), b"1", px=self._milliseconds)
        except RedisError as error:
            log.warning("presence refresh failed", agent_id=agent_id, error=str(error))

    async def remove(self, agent_id: str) -> None:
        """Mark an agent as gone at once."""
        try:
            await self._client.delete(self._key(agent_id))
        except RedisError as error:
            log.warning("presence removal failed", agent_id=agent_id, error=str(error))

    async def alive(self, agent_ids: list[str]) -> set[str] | None:
        """The agents among these that are alive; None while Redis is unavailable."""
        if not agent_ids:
            return set()
        try:
            values = await self._client.mget([self._key(agent_id) for agent_id in agent_ids])
        except RedisError as error:
            log.warning("presence lookup failed", error=str(error))
            return None
        return {agent_id for agent_id, value in zip(agent_ids, values, strict=True) if value is not None}

    async def agent_ids(self) -> set[str]:
        """Every agent that has a key, registered or not; raises StoreUnavailable while Redis is unavailable."""
        prefix = self._key("")
        with translate_errors("Redis", outage_reason):
            return {key.decode().removeprefix(prefix) async for key in self._client.scan_iter(f"{prefix}*", count=1000)}

    def _key(self, agent_id: str) -> str:
        return f"{self._prefix}:agent:{agent_id}"


def outage_reason(error: Exception) -> str | None:
    return type(error).__name__ if isinstance(error, RedisError) else None


def connect(url: str) -> "redis.Redis":
    """A client of the server at a `redis://` or `rediss://` URL; nothing is sent yet.

    Timeouts are short: every caller can do without Redis.
    """
    client = redis.Redis.from_url(
        url,
        max_connections=_CONNECTIONS,
        socket_connect_timeout=_ANSWER_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 1),  # reconnects once, when the server has closed the connection
        health_check_interval=30,
    )
    # Not an argument above: `from_url` would override it with the class of the URL's scheme.
    client.connection_pool.connection_class = SSLConnection if url.startswith("rediss:") else Connection
    return client


async def close(client: "redis.Redis") -> None:
    """Close the connections."""
    await asyncio.shield(client.aclose())
