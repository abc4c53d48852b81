"""Identifiers: a prefix that says what of, and randomness that cannot be guessed."""

import hashlib
import secrets
from typing import Literal

Prefix = Literal["cust", "user", "rec", "opt", "anal", "task", "agent", "evt", "acct", "dep", "runtime", "cmd", "token"]


def new_id(prefix: Prefix) -> str:
    """A new identifier such as `rec_5f0c…`, with 96 random bits."""
    return f"{prefix}_{secrets.token_hex(12)}"


def new_secret(prefix: str) -> str:
    """A new secret with 256 random bits; the prefix tells a person and a secret scanner what it opens."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def secret_hash(secret: str) -> str:
    """What is stored of a random secret. It has too many bits to be guessed, so a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()
