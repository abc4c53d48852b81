"""Signatures of requests to agents: what each is good for, and what else is refused."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from optiinfra.kit.task_requests import LIFETIME_SECONDS, TaskSigner, verify

SIGNER, OTHER = TaskSigner("s" * 48), TaskSigner("t" * 48)
BODY = b'{"task_id": "task_1"}'


def claims(**changes: Any) -> dict[str, Any]:
    issued = int(time.time())
    made = {
        "aud": "agent_1",
        "sub": "orchestrator",
        "iat": issued,
        "exp": issued + LIFETIME_SECONDS,
        "task": "task_1",
        "body_sha256": "0" * 64,
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def signed(key: Any = None, algorithm: str = "EdDSA", **changes: Any) -> str:
    return jwt.encode(claims(**changes), SIGNER._key if key is None else key, algorithm=algorithm)


def test_signature_is_for_one_agent_one_task_and_one_body() -> None:
    token = SIGNER.sign("agent_1", "task_1", BODY)
    found = verify(token, SIGNER.public_key, "agent_1")
    assert found.task_id == "task_1"
    assert found.covers(BODY)
    assert not found.covers(BODY + b" ")
    issued = jwt.decode(token, options={"verify_signature": False})
    assert issued["exp"] - issued["iat"] == 60
    for key, agent_id in ((OTHER.public_key, "agent_1"), (SIGNER.public_key, "agent_2")):
        with pytest.raises(jwt.InvalidTokenError):
            verify(token, key, agent_id)


def test_key_follows_from_the_secret() -> None:
    assert TaskSigner("s" * 48).public_key == SIGNER.public_key != OTHER.public_key


NOW = 0
"""Stands for the time of the test, in seconds from it."""


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "agent_2"},
        {"aud": None},
        {"sub": "agent_1"},
        {"sub": None},
        {"exp": NOW - 10},
        {"exp": None},
        {"exp": NOW + LIFETIME_SECONDS + 60},
        {"iat": NOW + 30},
        {"iat": None},
        {"task": None},
        {"task": ["task_1"]},
        {"body_sha256": None},
        {"body_sha256": 1},
        {"key": Ed25519PrivateKey.generate()},
        {"key": SIGNER.public_key, "algorithm": "HS256"},  # the public key taken for a shared one
        {"key": "", "algorithm": "none"},
    ],
)
def test_any_other_token_is_refused(changes: dict[str, Any]) -> None:
    assert verify(signed(), SIGNER.public_key, "agent_1").task_id == "task_1", "otherwise this proves nothing"
    present = int(time.time())
    moments = {name: present + changes[name] for name in ("iat", "exp") if changes.get(name) is not None}
    with pytest.raises(jwt.InvalidTokenError):
        verify(signed(**(changes | moments)), SIGNER.public_key, "agent_1")
    with pytest.raises(jwt.InvalidTokenError):
        verify("garbage", SIGNER.public_key, "agent_1")
