"""Rate limits and lockouts, counted in Redis for all processes; while it is unavailable, by each process for itself."""

import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis.asyncio as redis
import structlog
from cachetools import TTLCache
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

T = TypeVar("T")

_FAILURES_REMEMBERED_SECONDS = 24 * 3600
_ACCOUNTS = 10_000
"""For how many accounts a process keeps requests that it has reserved."""
_RESERVED_SHARE = 10


class RateLimits:
    """Counts what callers do against limits."""

    def __init__(self, client: "redis.Redis", prefix: str) -> None:
        shared = RedisStorage(
            "redis://",
            implementation="redispy",
            key_prefix=f"{prefix}:limit",
            connection_pool=client.connection_pool,  # type: ignore[arg-type]  # passed on to redis-py
        )
        own = MemoryStorage()
        self._sliding = SlidingWindowCounterRateLimiter(shared), SlidingWindowCounterRateLimiter(own)
        self._fixed = FixedWindowRateLimiter(shared), FixedWindowRateLimiter(own)
        self._reserved: dict[RateLimitItem, TTLCache[str, int]] = {}

    async def hit(self, limit: RateLimitItem, name: str, key: str, cost: int = 1) -> int | None:
        """Count `cost` for a key. None if that is within the limit, else the seconds to wait. `name` is the limit's."""
        shared, own = self._sliding

        async def count(limiter: SlidingWindowCounterRateLimiter) -> int | None:
            if await limiter.hit(limit, name, key, cost=cost):
                return None
            return _seconds_until((await limiter.get_window_stats(limit, name, key)).reset_time)

        return await _fall_back(lambda: count(shared), lambda: count(own))

    async def hit_frequent(self, limit: RateLimitItem, name: str, key: str) -> int | None:
        """Like `hit` for limits on every request: most are counted in this process, from a tenth that it reserves."""
        reserved = self._reserved.setdefault(limit, TTLCache(_ACCOUNTS, limit.get_expiry()))
        if left := reserved.get(key, 0):
            reserved[key] = left - 1
            return None
        size = max(1, limit.amount // _RESERVED_SHARE)
        shared, own = self._fixed

        async def reserve(limiter: FixedWindowRateLimiter) -> int | None:
            if await limiter.hit(limit, name, key, cost=size):
                reserved[key] = reserved.get(key, 0) + size - 1
                return None
            return _seconds_until((await limiter.get_window_stats(limit, name, key)).reset_time)

        return await _fall_back(lambda: reserve(shared), lambda: reserve(own))


class Lockouts:
    """Locks a key after repeated failures, each time twice as long. Without Redis nothing is locked."""

    def __init__(self, client: "redis.Redis", prefix: str, failures: int, first_seconds: float, most_seconds: float):
        self._client, self._prefix = client, prefix
        self._failures, self._first, self._most = failures, first_seconds, most_seconds

    async def seconds_left(self, key: str) -> int | None:
        """How long the key is locked; None if it is not."""
        try:
            milliseconds = await self._client.pttl(self._name("locked", key))
        except RedisError as error:
            log.warning("lockout lookup failed", error=str(error))
            return None
        return max(1, math.ceil(milliseconds / 1000)) if milliseconds > 0 else None

    async def fail(self, key: str) -> None:
        """Count a failure, and lock the key if there were too many."""
        counter = self._name("failures", key)
        try:
            async with self._client.pipeline() as pipeline:
                pipeline.incr(counter)
                pipeline.expire(counter, _FAILURES_REMEMBERED_SECONDS)
                counted, _ = await pipeline.execute()
            if (excess := counted - self._failures) >= 0:
                # The exponent is bounded, as years of failures must not overflow.
                seconds = min(self._most, self._first * 2 ** min(excess, 32))
                await self._client.set(self._name("locked", key), b"1", px=int(seconds * 1000))
        except RedisError as error:
            log.warning("lockout count failed", error=str(error))

    async def succeed(self, key: str) -> None:
        """Forget the key's failures."""
        try:
            await self._client.delete(self._name("failures", key), self._name("locked", key))
        except RedisError as error:
            log.warning("lockout removal failed", error=str(error))

    def _name(self, kind: str, key: str) -> str:
        return f"{self._prefix}:{kind}:{key}"


def _seconds_until(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))


async def _fall_back(shared: Callable[[], Awaitable[T]], own: Callable[[], Awaitable[T]]) -> T:
    try:
        return await shared()
    except RedisError as error:
        log.warning("rate limit not shared", error=str(error))
        return await own()
