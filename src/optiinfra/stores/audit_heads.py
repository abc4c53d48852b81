"""The newest entry of each audit chain, kept in Redis: entries removed from the end in PostgreSQL are noticed."""

from typing import cast

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from optiinfra.stores.errors import translate_errors
from optiinfra.stores.redis import outage_reason

log = structlog.get_logger(__name__)

# Entries of one chain may arrive here in another order than they were written.
_ADVANCE = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known or tonumber(string.match(known, '^%d+')) < tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. ARGV[3])
end
"""


class AuditHeads:
    """Number and MAC of each chain's newest entry, by the chain's name."""

    def __init__(self, client: "redis.Redis", prefix: str) -> None:
        self._client, self._key = client, f"{prefix}:audit-heads"
        self._advance = client.register_script(_ADVANCE)

    async def advance(self, chain: str, seq: int, mac: str) -> None:
        """Record an entry unless a newer one is recorded. Without Redis, later entries will be."""
        try:
            await self._advance(keys=[self._key], args=[chain, seq, mac])
        except RedisError as error:
            log.warning("audit head not recorded", chain=chain, seq=seq, error=str(error))

    async def all(self) -> dict[str, tuple[int, str]]:
        """Every chain's newest entry; raises StoreUnavailable while Redis is unavailable."""
        with translate_errors("Redis", outage_reason):
            found = cast("dict[bytes, bytes]", await self._client.hgetall(self._key))
        heads = {name.decode(): value.decode().partition(":") for name, value in found.items()}
        return {name: (int(seq), mac) for name, (seq, _, mac) in heads.items()}
