"""Access tokens (JWT, minutes) and refresh tokens (random, single use).

Both name the session that their sign-in began: the family of its refresh tokens. It ends when that family is revoked:
at sign-out, or when a refresh token is used a second time.
"""

import time
from datetime import timedelta
from functools import lru_cache

import jwt
from sqlalchemy import bindparam, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.accounts import Tokens
from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database, notify_after_commit
from optiinfra.stores.postgres.reads import Query

_VALID = Query(
    select(literal(1).label("found"))
    .where(models.RefreshToken.family == bindparam("session_id"), models.RefreshToken.revoked_at.is_(None))
    .limit(1)
)
_ALGORITHM = "HS256"
_AUDIENCE = "optiinfra"
_REMEMBERED = 1000
"""How many tokens are remembered as verified: each is sent with many requests."""


def read_access_token(settings: Settings, token: str) -> Principal | None:
    """The user that a valid access token was issued to; None for any other text. The session may have ended since."""
    try:
        user, expires = _verify(token, settings.token_signing_key)
    except jwt.InvalidTokenError:
        return None
    return user if time.time() < expires else None


@lru_cache(maxsize=_REMEMBERED)
def _verify(token: str, key: str) -> tuple[Principal, int]:
    """The user and the end of a token with a valid signature. Raises InvalidTokenError, which is not remembered."""
    claims = jwt.decode(
        token,
        key,
        algorithms=[_ALGORITHM],
        audience=_AUDIENCE,
        options={"require": ["exp", "sub", "aud", "sid"]},
    )
    return Principal("user", claims["sub"], claims["customer_id"], claims["role"], claims["sid"]), int(claims["exp"])


async def issue(session: AsyncSession, settings: Settings, user: models.User, session_id: str | None = None) -> Tokens:
    """New tokens for a user; `session_id` continues a session, None begins one."""
    refresh, session_id = new_secret("refresh"), session_id or new_id("session")
    session.add(
        models.RefreshToken(
            token_hash=secret_hash(refresh),
            user_id=user.id,
            family=session_id,
            expires_at=now() + timedelta(seconds=settings.refresh_token_seconds),
        )
    )
    claims = {
        "sub": user.id,
        "sid": session_id,
        "aud": _AUDIENCE,
        "customer_id": user.customer_id,
        "role": user.role,
        "exp": int(time.time()) + settings.access_token_seconds,
    }
    access = jwt.encode(claims, settings.token_signing_key, algorithm=_ALGORITHM)
    return Tokens(access_token=access, refresh_token=refresh, expires_in=settings.access_token_seconds)


async def rotate(session: AsyncSession, settings: Settings, refresh: str) -> Tokens | None:
    """New tokens for an unused refresh token; None for any other, and the session of a used one is ended."""
    presented = models.RefreshToken.token_hash == secret_hash(refresh)
    user_id = await session.scalar(select(models.RefreshToken.user_id).where(presented))
    user = await _lock_user(session, user_id) if user_id is not None else None
    found = await session.scalar(select(models.RefreshToken).where(presented))
    if user is None or found is None or found.revoked_at is not None or found.expires_at <= now():
        return None
    if found.used_at is not None:
        await _revoke(session, found.family)
        return None
    found.used_at = now()
    return await issue(session, settings, user, found.family)


async def end_session(session: AsyncSession, user_id: str, session_id: str) -> None:
    """End a session: none of its tokens is valid any more."""
    await _lock_user(session, user_id)
    await _revoke(session, session_id)


async def is_active(database: Database, session_id: str) -> bool:
    """Whether the session has not ended. One look into an index: every request of a user asks."""
    return bool(await database.read(_VALID, session_id=session_id))


def channel(session_id: str) -> str:
    """The channel that is notified when a session ends."""
    return f"session:{session_id}"


async def _lock_user(session: AsyncSession, user_id: str) -> models.User | None:
    """Make rotations and sign-outs of one user wait for each other: no new token can appear beside a revocation."""
    return await session.get(models.User, user_id, with_for_update={"key_share": True})


async def _revoke(session: AsyncSession, session_id: str) -> None:
    table = models.RefreshToken
    valid = table.family == session_id, table.revoked_at.is_(None)
    await session.execute(update(table).where(*valid).values(revoked_at=now()))
    notify_after_commit(session, channel(session_id))
