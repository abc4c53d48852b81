"""Presence and wake-up in Redis. Nothing here is the truth: what is lost only delays, it never misleads."""

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
"""Every reader that waits holds one: a runtime, a live stream, a step that has ordered something.

Readers beyond them look by themselves now and then. Those that call us hold as many descriptors, of often 1024.
"""
_RECHECK_SECONDS = 2.0
"""How often a waiting reader looks by itself, in case a wake-up was lost with Redis."""


class Connection(redis.Connection):
    """One that loses no cancellation of the task that sends, and raises RedisError when it died unnoticed."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send; raises RedisError when that fails."""
        try:
            with _cancellations_kept():
                await super().send_packed_command(command, check_health)
        except asyncio.CancelledError:
            await self.disconnect(nowait=True)  # nobody reads the answer
            raise

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        try:
            await super()._send_packed_command(command)
        except RuntimeError as error:  # uvloop's word for a closed transport; the client knows OSErrors only
            raise ConnectionResetError(str(error)) from error


class SSLConnection(Connection, redis.SSLConnection):
    """The same over TLS."""


@contextmanager
def _cancellations_kept() -> Iterator[None]:
    """Raises CancelledError when the running task was cancelled meanwhile and that was swallowed.

    The client sends by `asyncio.wait_for`. Before Python 3.12 that drops a cancellation that comes just as it ends, and
    what was to stop would go on.
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
    """Tells waiting readers, in any process, that there is something new to fetch from PostgreSQL."""

    def __init__(self, client: "redis.Redis", prefix: str) -> None:
        self._client, self._prefix = client, prefix

    async def ping(self) -> None:
        """Raises StoreUnavailable when the server does not answer."""
        with translate_errors("Redis", outage_reason):
            await self._client.ping()

    async def ring(self, channel: str) -> None:
        """Wake everyone who waits on a channel; without Redis they look by themselves within seconds."""
        try:
            await self._client.publish(f"{self._prefix}:wake:{channel}", b"")
        except RedisError as error:
            log.warning("nobody was woken", channel=channel, error=str(error))

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Subscribe, and yield a function that waits until the channel rings, at most so many seconds.

        What rings between two waits is not lost: the next wait returns at once. While Redis is away, a wait ends
        after `_RECHECK_SECONDS`, for the reader to look by itself.
        """
        async with self._client.pubsub() as subscription:

            async def wait(seconds: float) -> None:
                ends = time.monotonic() + seconds
                try:
                    if not subscription.subscribed:
                        await subscription.subscribe(name)
                    while (left := ends - time.monotonic()) > 0:
                        message = await subscription.get_message(timeout=left)
                        if message is not None and message["type"] == "message":
                            return
                except RedisError as error:
                    log.warning("waiting without being woken", channel=channel, error=str(error))
                    await asyncio.sleep(min(max(0.0, ends - time.monotonic()), _RECHECK_SECONDS))

            name = f"{self._prefix}:wake:{channel}"
            with contextlib.suppress(RedisError):  # the first wait tries again, and says so
                await subscription.subscribe(name)
            yield wait

    async def until(self, channel: str, fetch: Callable[[], Awaitable[T | None]], seconds: float) -> T | None:
        """Fetch again whenever the channel rings until there is something, at most so many seconds (then None)."""
        found = await fetch()
        if found is not None or seconds <= 0:
            return found
        ends = time.monotonic() + seconds
        async with self.listening(channel) as wait:
            # Looked at once more after subscribing, or what came in between would be missed.
            while (found := await fetch()) is None and (left := ends - time.monotonic()) > 0:
                await wait(min(left, _RECHECK_SECONDS))
        return found


class Presence:
    """Which agents have been heard of lately: one key an agent that expires by itself."""

    def __init__(self, client: "redis.Redis", prefix: str, seconds: float) -> None:
        self._client, self._prefix, self._milliseconds = client, prefix, int(seconds * 1000)

    async def seen(self, agent_id: str) -> None:
        """Note a sign of life."""
        try:
            await self._client.set(self._key(agent_id), b"1", px=self._milliseconds)
        except RedisError as error:
            log.warning("presence not noted", agent_id=agent_id, error=str(error))

    async def gone(self, agent_id: str) -> None:
        """Note that the agent left."""
        try:
            await self._client.delete(self._key(agent_id))
        except RedisError as error:
            log.warning("absence not noted", agent_id=agent_id, error=str(error))

    async def alive(self, agent_ids: list[str]) -> set[str] | None:
        """Those of the agents that were heard of lately; None when Redis cannot tell."""
        if not agent_ids:
            return set()
        try:
            values = await self._client.mget([self._key(agent_id) for agent_id in agent_ids])
        except RedisError as error:
            log.warning("presence unknown", error=str(error))
            return None
        return {agent_id for agent_id, value in zip(agent_ids, values, strict=True) if value is not None}

    async def everyone(self) -> set[str]:
        """The agents that have a key, registered or not; raises StoreUnavailable when Redis cannot tell."""
        prefix = self._key("")
        with translate_errors("Redis", outage_reason):
            return {key.decode().removeprefix(prefix) async for key in self._client.scan_iter(f"{prefix}*", count=1000)}

    def _key(self, agent_id: str) -> str:
        return f"{self._prefix}:agent:{agent_id}"


def outage_reason(error: Exception) -> str | None:
    return type(error).__name__ if isinstance(error, RedisError) else None


def connect(url: str) -> "redis.Redis":
    """A client of the server at a `redis://` or `rediss://` URL; nothing is sent yet.

    It gives up soon: everybody who waits for Redis can do without it.
    """
    client = redis.Redis.from_url(
        url,
        max_connections=_CONNECTIONS,
        socket_connect_timeout=_ANSWER_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 1),  # a connection that the server closed is made anew
        health_check_interval=30,
    )
    # Not an argument above: the one that the URL asks for goes before it.
    client.connection_pool.connection_class = SSLConnection if url.startswith("rediss:") else Connection
    return client


async def close(client: "redis.Redis") -> None:
    """Close the connections."""
    await asyncio.shield(client.aclose())
