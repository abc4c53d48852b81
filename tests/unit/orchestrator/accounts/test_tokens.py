"""Which texts are valid access tokens."""

import time
from typing import Any

import jwt
import pytest

from optiinfra.kit.auth import Principal
from optiinfra.orchestrator.accounts.tokens import key_id, read_access_token
from optiinfra.orchestrator.settings import Settings

KEY = "a signing key that is long enough, for HS512 too" * 2
SETTINGS = Settings.model_construct(token_signing_key=KEY)


def token(key: str = KEY, algorithm: str = "HS256", kid: str | None = key_id(KEY), **changes: Any) -> str:
    """A token as issued, with claims changed, or left out where the change is None."""
    issued: dict[str, Any] = {"sub": "user_1", "aud": "optiinfra", "sid": "session_1", "customer_id": "cust_1"}
    issued |= {"role": "owner", "exp": time.time() + 60}
    claims = {name: value for name, value in (issued | changes).items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers={} if kid is None else {"kid": kid})


def test_read_access_token_returns_the_user() -> None:
    expires = int(time.time()) + 60
    expected = Principal("user", "user_1", "cust_1", "owner", "session_1", expires_at=expires)
    assert read_access_token(SETTINGS, token(exp=expires)) == expected


def test_read_access_token_that_expires_after_its_first_use_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())
    expiring = token(exp=now + 60)
    assert read_access_token(SETTINGS, expiring) is not None
    monkeypatch.setattr(time, "time", lambda: now + 60.0)
    assert read_access_token(SETTINGS, expiring) is None


def test_read_access_token_after_a_change_of_the_key_is_none_unless_the_key_is_kept_as_a_previous_one() -> None:
    issued, other = token(), KEY[::-1]
    assert read_access_token(SETTINGS, issued) is not None
    assert read_access_token(Settings.model_construct(token_signing_key=other), issued) is None
    kept = Settings.model_construct(token_signing_key=other, previous_token_signing_keys=("unrelated" * 8, KEY))
    assert read_access_token(kept, issued) == read_access_token(SETTINGS, issued)
    assert read_access_token(kept, token(other, kid=key_id(KEY))) is None


@pytest.mark.parametrize(
    "text",
    [
        token(aud="agent_1"),
        token(aud=None),
        token(exp=time.time() - 1),
        token(exp=None),
        token(sub=None),
        token(sid=None),
        token(key="another key that is as long as our own one" * 2),
        token(key="", algorithm="none"),
        token(algorithm="HS512"),
        token(kid=None),
        token(kid="another key"),
        "nonsense",
        "",
    ],
)
def test_read_access_token_of_an_invalid_token_is_none(text: str) -> None:
    assert read_access_token(SETTINGS, text) is None
