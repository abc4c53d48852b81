"""Access tokens (JWT, minutes) and refresh tokens (random, single use), both of one session.

An access token names the key that signed it (`kid`), so that keys can be replaced: tokens of a previous key stay valid
until they expire.
"""

import hashlib
import time
from datetime import datetime, timedelta
from functools import lru_cache

import jwt
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.accounts import Tokens
from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_secret, secret_hash
from optiinfra.orchestrator.accounts import sessions
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models

_ALGORITHM = "HS256"
_AUDIENCE = "optiinfra"
_REMEMBERED = 1000
"""How many tokens are remembered as verified: each is sent with many requests."""


def key_id(key: str) -> str:
    """The public name of a signing key."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def read_access_token(settings: Settings, token: str) -> Principal | None:
    """The user that a valid access token was issued to; None for any other text. The session may have ended since."""
    try:
        user = _verify(token, (settings.token_signing_key, *settings.previous_token_signing_keys))
    except jwt.InvalidTokenError:
        return None
    return user if time.time() < user.expires_at else None


@lru_cache(maxsize=_REMEMBERED)
def _verify(token: str, keys: tuple[str, ...]) -> Principal:
    """The user of a token with a valid signature. Raises InvalidTokenError, which is not remembered."""
    named = jwt.get_unverified_header(token).get("kid")
    key = next((key for key in keys if key_id(key) == named), None)
    if key is None:
        raise jwt.InvalidTokenError("signed with an unknown key")
    claims = jwt.decode(
        token,
        key,
        algorithms=[_ALGORITHM],
        audience=_AUDIENCE,
        options={"require": ["exp", "sub", "aud", "sid"]},
    )
    return Principal(
        "user", claims["sub"], claims["customer_id"], claims["role"], claims["sid"], expires_at=int(claims["exp"])
    )


async def issue(
    session: AsyncSession, settings: Settings, user: models.User, user_session: models.UserSession
) -> Tokens:
    """New tokens of a session, which the caller has locked or just begun. None outlives the session."""
    refresh, issued_at = new_secret("refresh"), now()
    session.add(
        models.RefreshToken(
            token_hash=secret_hash(refresh),
            session_id=user_session.id,
            expires_at=_until(issued_at, settings.refresh_token_seconds, user_session),
        )
    )
    expires = int(_until(issued_at, settings.access_token_seconds, user_session).timestamp())
    claims = {
        "sub": user.id,
        "sid": user_session.id,
        "aud": _AUDIENCE,
        "customer_id": user.customer_id,
        "role": user.role,
        "exp": expires,
    }
    key = settings.token_signing_key
    access = jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": key_id(key)})
    return Tokens(access_token=access, refresh_token=refresh, expires_in=expires - int(issued_at.timestamp()))


async def owner_of(session: AsyncSession, refresh: str) -> Principal | None:
    """The user of a refresh token, valid or not, and the session; None for any other text."""
    token, owning, user = models.RefreshToken, models.UserSession, models.User
    owner = (
        select(user.id, user.customer_id, user.role, token.session_id)
        .join_from(token, owning, owning.id == token.session_id)
        .join(user, user.id == owning.user_id)
        .where(token.token_hash == secret_hash(refresh))
    )
    found = (await session.execute(owner)).first()
    return found and Principal("user", found.id, found.customer_id, found.role, found.session_id)


async def rotate(session: AsyncSession, settings: Settings, refresh: str) -> Tokens | None:
    """New tokens for an unused refresh token; None for any other, and the session of a used one is ended."""
    presented = models.RefreshToken.token_hash == secret_hash(refresh)
    session_id = await session.scalar(select(models.RefreshToken.session_id).where(presented))
    user_session = None if session_id is None else await sessions.lock(session, session_id)
    found = await session.scalar(select(models.RefreshToken).where(presented))
    if user_session is None or found is None:
        return None
    if found.used_at is not None:
        await sessions.end(session, models.UserSession.id == user_session.id)
        return None
    if found.expires_at <= now():
        return None
    found.used_at = user_session.refreshed_at = now()
    user = await session.get_one(models.User, user_session.user_id)
    return await issue(session, settings, user, user_session)


def _until(issued_at: datetime, seconds: float, user_session: models.UserSession) -> datetime:
    return min(issued_at + timedelta(seconds=seconds), user_session.expires_at)
