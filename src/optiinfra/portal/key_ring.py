"""Encryption with AES-256-GCM under keys that can be replaced: a new key encrypts, previous ones still decrypt."""

import base64
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class KeyRing:
    """Seals texts for one purpose: what was sealed for another one cannot be unsealed.

    A sealed text names its key by an id, and is authenticated together with it.
    """

    def __init__(self, purpose: str, key: str, previous: Sequence[str] = ()) -> None:
        self._purpose, self._current = purpose, _key_id(key)
        self._ciphers = {_key_id(each): AESGCM(hashlib.sha256(each.encode()).digest()) for each in (key, *previous)}

    def seal(self, text: str) -> str:
        """The text, encrypted with the current key, in characters that a cookie may have."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, text.encode(), self._context(self._current))
        encoded = base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")  # with "=" a cookie would be quoted
        return f"{self._current}.{encoded}"

    def unseal(self, sealed: str) -> str | None:
        """The text; None if it was sealed with an unknown key, for another purpose, or changed since."""
        key_id, _, encoded = sealed.partition(".")
        if key_id not in self._ciphers:
            return None
        try:
            raw = base64.urlsafe_b64decode(encoded + "==")
            plain = self._ciphers[key_id].decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], self._context(key_id))
        except (ValueError, InvalidTag):
            return None
        return plain.decode()

    def _context(self, key_id: str) -> bytes:
        return f"{self._purpose} {key_id}".encode()


def _key_id(key: str) -> str:
    """The public name of a key. It has nothing of the digest that encrypts."""
    return hashlib.sha256(b"key id " + key.encode()).hexdigest()[:16]
