"""Users' sessions. One begins at a sign-in; it ends at its sign-out, and with the absolute lifetime at the latest.

Whoever ends a session or gives out tokens of it locks its row first: no token can appear beside its end.
"""

from datetime import timedelta

from sqlalchemy import ColumnElement, bindparam, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.accounts import ActiveSession
from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database, notify_after_commit
from optiinfra.stores.postgres.reads import Query

_TABLE = models.UserSession
_ACTIVE = _TABLE.ended_at.is_(None), _TABLE.expires_at > func.clock_timestamp()
_IS_ACTIVE = Query(select(literal(1).label("found")).where(_TABLE.id == bindparam("session_id"), *_ACTIVE))
_OF_USER = Query(
    select(_TABLE.id, _TABLE.created_at, _TABLE.refreshed_at, _TABLE.expires_at)
    .where(_TABLE.user_id == bindparam("user_id"), *_ACTIVE)
    .order_by(_TABLE.refreshed_at.desc(), _TABLE.id)
    .limit(bindparam("limit"))
)


async def begin(session: AsyncSession, settings: Settings, user_id: str) -> models.UserSession:
    """A new session of a user, whose row the caller has locked."""
    began = now()
    begun = _TABLE(
        id=new_id("session"),
        user_id=user_id,
        created_at=began,
        refreshed_at=began,
        expires_at=began + timedelta(seconds=settings.session_seconds),
    )
    session.add(begun)
    await session.flush()  # before its tokens, which refer to it
    return begun


async def lock(session: AsyncSession, session_id: str) -> models.UserSession | None:
    """The session, locked until the transaction ends; None when it has ended."""
    return await session.scalar(select(_TABLE).where(_TABLE.id == session_id, *_ACTIVE).with_for_update())


async def end(session: AsyncSession, *which: ColumnElement[bool]) -> list[str]:
    """End the active sessions that meet all conditions: their tokens are refused, their streams closed. Their ids."""
    ending = update(_TABLE).where(*which, *_ACTIVE).values(ended_at=now()).returning(_TABLE.id)
    ended = list(await session.scalars(ending))
    for session_id in ended:
        notify_after_commit(session, channel(session_id))
    return ended


async def is_active(database: Database, session_id: str) -> bool:
    """Whether the session has not ended. One look into an index: every request of a user asks."""
    return bool(await database.read(_IS_ACTIVE, session_id=session_id))


async def listed(database: Database, user: Principal, limit: int) -> list[ActiveSession]:
    """The user's active sessions, the most recently refreshed first."""
    return [
        ActiveSession(
            session_id=row.id,
            created_at=row.created_at,
            refreshed_at=row.refreshed_at,
            expires_at=row.expires_at,
            current=row.id == user.session_id,
        )
        for row in await database.read(_OF_USER, user_id=user.subject, limit=limit)
    ]


def channel(session_id: str) -> str:
    """The channel that is notified when a session ends."""
    return f"session:{session_id}"
