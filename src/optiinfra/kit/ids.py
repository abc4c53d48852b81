"""Identifiers: a prefix that names the kind, and random bits that cannot be guessed."""

import hashlib
import secrets
from typing import Literal

Prefix = Literal[
    "cust",
    "user",
    "session",
    "rec",
    "opt",
    "anal",
    "task",
    "agent",
    "evt",
    "acct",
    "dep",
    "runtime",
    "cmd",
    "token",
    "key",
]


def new_id(prefix: Prefix) -> str:
    """A new identifier such as `rec_5f0c…`, with 96 random bits."""
    return f"{prefix}_{secrets.token_hex(12)}"


def new_secret(prefix: str) -> str:
    """A new secret with 256 random bits; the prefix identifies its purpose to people and secret scanners."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def secret_hash(secret: str) -> str:
    """SHA-256 of a random secret, for storage. A fast hash suffices: 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()
