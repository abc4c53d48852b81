"""Passwords: Argon2id with the parameters that OWASP ASVS 5.0 asks for at least (19 MiB, two passes)."""

import functools
import os

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_THREADS = CapacityLimiter(max(1, (os.cpu_count() or 1) // 2))
"""Half of the cores: many attempts to sign in must not take the CPU time of other requests."""
_DUMMY_HASH = _HASHER.hash("nobody has this password")


async def hash_password(password: str) -> str:
    """The hash of a password, to be stored."""
    return await to_thread.run_sync(_HASHER.hash, password, limiter=_THREADS)


async def verify(password_hash: str | None, password: str) -> bool:
    """Whether the password is right. An unknown user (None) takes as long, to prevent timing attacks."""
    check = functools.partial(_verify, password_hash or _DUMMY_HASH, password)
    return await to_thread.run_sync(check, limiter=_THREADS) and password_hash is not None


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
