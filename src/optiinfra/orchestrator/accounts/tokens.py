"""Access tokens (JWT, minutes) and refresh tokens (random, single use; reuse causes revocation of the family)."""

import time
from datetime import timedelta

import jwt
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.accounts import Tokens
from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id, new_secret, secret_hash
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models

_ALGORITHM = "HS256"
_AUDIENCE = "optiinfra"


def read_access_token(settings: Settings, token: str) -> Principal | None:
    """The user that a valid access token belongs to; None for any other text."""
    try:
        claims = jwt.decode(
            token,
            settings.token_signing_key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            options={"require": ["exp", "sub", "aud"]},
        )
    except jwt.InvalidTokenError:
        return None
    return Principal("user", claims["sub"], claims["customer_id"], claims["role"])


async def issue(session: AsyncSession, settings: Settings, user: models.User, family: str | None = None) -> Tokens:
    """New tokens for a user; `family` continues a sign-in, None begins one."""
    refresh = new_secret("refresh")
    session.add(
        models.RefreshToken(
            token_hash=secret_hash(refresh),
            user_id=user.id,
            family=family or new_id("token"),
            expires_at=now() + timedelta(seconds=settings.refresh_token_seconds),
        )
    )
    claims = {
        "sub": user.id,
        "aud": _AUDIENCE,
        "customer_id": user.customer_id,
        "role": user.role,
        "exp": int(time.time()) + settings.access_token_seconds,
    }
    access = jwt.encode(claims, settings.token_signing_key, algorithm=_ALGORITHM)
    return Tokens(access_token=access, refresh_token=refresh, expires_in=settings.access_token_seconds)


async def rotate(session: AsyncSession, settings: Settings, refresh: str) -> Tokens | None:
    """New tokens for an unused refresh token; None for any other, and the family of a used one is revoked."""
    query = select(models.RefreshToken).where(models.RefreshToken.token_hash == secret_hash(refresh)).with_for_update()
    found = await session.scalar(query)
    if found is None or found.revoked_at is not None or found.expires_at <= now():
        return None
    if found.used_at is not None:
        await revoke_family(session, found.family)
        return None
    found.used_at = now()
    user = await session.get_one(models.User, found.user_id)
    return await issue(session, settings, user, found.family)


async def revoke_family(session: AsyncSession, family: str) -> None:
    """Revoke all refresh tokens of one sign-in."""
    table = models.RefreshToken
    await session.execute(update(table).where(table.family == family).values(revoked_at=now()))


async def revoke_all(session: AsyncSession, user_id: str) -> None:
    """Revoke all refresh tokens of a user."""
    table = models.RefreshToken
    await session.execute(update(table).where(table.user_id == user_id).values(revoked_at=now()))
