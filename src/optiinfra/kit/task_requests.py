"""Signatures of the orchestrator's requests to agents.

Each is for one agent, one task and one body, and short-lived. Agents know the public key only, so that none of them can
send requests to another one.
"""

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from functools import lru_cache

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LIFETIME_SECONDS = 60
_CLOCK_SECONDS = 5
"""By how much the clocks of orchestrator and agent may differ."""
_ALGORITHM = "EdDSA"
_SUBJECT = "orchestrator"
_REQUIRED = ["aud", "exp", "iat", "sub", "task", "body_sha256"]


@dataclass(frozen=True, slots=True)
class TaskClaims:
    """What a valid token allows: to send this task with a body of this digest."""

    task_id: str
    body_sha256: str

    def covers(self, body: bytes) -> bool:
        """Whether the body is the one that was signed."""
        return hmac.compare_digest(self.body_sha256, _digest(body))


class TaskSigner:
    """Signs with an Ed25519 key, derived from a secret of any length."""

    def __init__(self, secret: str) -> None:
        derived = HKDF(SHA256(), 32, salt=None, info=b"optiinfra task requests").derive(secret.encode())
        self._key = Ed25519PrivateKey.from_private_bytes(derived)
        self.public_key = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
        """The key that agents verify with, in Base64."""

    def sign(self, agent_id: str, task_id: str, body: bytes) -> str:
        """The token with which this agent accepts this task."""
        issued = int(time.time())
        claims = {
            "aud": agent_id,
            "sub": _SUBJECT,
            "iat": issued,
            "exp": issued + LIFETIME_SECONDS,
            "task": task_id,
            "body_sha256": _digest(body),
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)


@lru_cache(maxsize=16)
def task_signer(secret: str) -> TaskSigner:
    """The signer of a secret, derived once."""
    return TaskSigner(secret)


def verify(token: str, public_key: str, agent_id: str) -> TaskClaims:
    """The claims of the orchestrator's token for this agent; raises jwt's InvalidTokenError for any other text."""
    claims = jwt.decode(
        token,
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)),
        algorithms=[_ALGORITHM],
        audience=agent_id,
        subject=_SUBJECT,
        leeway=_CLOCK_SECONDS,
        options={"require": _REQUIRED},
    )
    if claims["exp"] - claims["iat"] > LIFETIME_SECONDS:
        raise jwt.InvalidTokenError(f"it is valid for more than {LIFETIME_SECONDS} s")
    if not isinstance(claims["task"], str) or not isinstance(claims["body_sha256"], str):
        raise jwt.InvalidTokenError("task and body_sha256 must be texts")
    return TaskClaims(claims["task"], claims["body_sha256"])


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
