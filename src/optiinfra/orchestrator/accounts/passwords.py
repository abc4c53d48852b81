"""Passwords: what is refused, and Argon2id with what OWASP ASVS 5.0 asks for at least (19 MiB, two passes).

Guesses are estimated by zxcvbn-rs-py: zxcvbn's lists and patterns in a compiled module of 1.6 MB without dependencies,
whose import takes 10 ms. Lists of passwords alone are larger, and miss variations of what they hold.
"""

import asyncio
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn_rs_py import zxcvbn

from optiinfra.orchestrator.errors import Invalid

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


_NICE = 10


def _yield_to_others() -> None:
    """Lower the priority of this thread, which Linux can: hashing takes the CPU time that nobody else needs."""
    if sys.platform == "linux":
        nice = max(_NICE, os.getpriority(os.PRIO_PROCESS, 0))  # a lower value would need privileges
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)


_THREADS = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), "passwords", _yield_to_others)
"""At most half of the cores: many attempts to sign in must not take the CPU time of other requests."""
_DUMMY_HASH = _HASHER.hash("nobody has this password")

_GUESSES = 10**8
"""What zxcvbn calls safely unguessable, protection against online and moderate offline guessing."""
_WORD_LENGTH, _OWN_LENGTH = 3, 8
"""Letters of a word that is looked for; letters and digits that must be left without these words."""


async def check_new(password: str, *context: str) -> None:
    """Raises Invalid for a password that is common, or made of the context: e-mail address, company name."""
    refusal = await _in_thread(_refusal, password, (*context, "OptiInfra"))
    if refusal is not None:
        raise Invalid(refusal, "weak_password")


async def hash_password(password: str) -> str:
    """The hash of a password, to be stored."""
    return await _in_thread(_HASHER.hash, password)


async def verify(password_hash: str | None, password: str) -> bool:
    """Whether the password is right. An unknown user (None) takes as long, to prevent timing attacks."""
    return await _in_thread(_verify, password_hash or _DUMMY_HASH, password) and password_hash is not None


async def _in_thread(work: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work, *arguments)


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _refusal(password: str, context: tuple[str, ...]) -> str | None:
    words = {word for text in context for word in re.split(r"[\W_]+", _folded(text)) if len(word) >= _WORD_LENGTH}
    longest_first = sorted(words, key=len, reverse=True)
    own = re.sub("|".join(map(re.escape, longest_first)), "", _folded(password))
    if len(re.sub(r"[\W_]+", "", own)) < _OWN_LENGTH <= len(re.sub(r"[\W_]+", "", _folded(password))):
        return "the password is made of your e-mail address, your company's name or ours: choose another one"
    if zxcvbn(password, longest_first).guesses < _GUESSES:
        return "the password is too common or too easy to guess: choose another one, such as four unrelated words"
    return None


def _folded(text: str) -> str:
    """Without the differences of case and form that people do not see."""
    return unicodedata.normalize("NFKC", text).casefold()
