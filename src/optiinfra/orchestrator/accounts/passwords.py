"""Passwords: Argon2id with the parameters that OWASP ASVS 5.0 asks for at least (19 MiB, two passes)."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_DUMMY_HASH = _HASHER.hash("nobody has this password")


async def hash_password(password: str) -> str:
    """The hash of a password, to be stored."""
    return await asyncio.to_thread(_HASHER.hash, password)


async def verify(password_hash: str | None, password: str) -> bool:
    """Whether the password is right. An unknown user (None) takes as long, to prevent timing attacks."""
    return await asyncio.to_thread(_verify, password_hash or _DUMMY_HASH, password) and password_hash is not None


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
