"""What agent tokens and API keys have in common: stored as a hash, found by it, ended, and their last use recorded."""

from datetime import timedelta

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.kit.ids import secret_hash
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.reads import Query, Row

_USE_RECORDED_EVERY = timedelta(minutes=1)
"""Every request uses one: a write for each would cost more than most requests."""


class StoredCredentials:
    """The credentials of one table. `active` ones are neither deleted nor expired."""

    def __init__(self, table: type[models.AgentToken | models.ApiKey]) -> None:
        active = table.revoked_at.is_(None), table.expires_at > func.clock_timestamp()
        self._table = table
        self._by_hash = Query(select(*table.__table__.c).where(table.token_hash == bindparam("token_hash"), *active))
        self._by_id = Query(select(table.id).where(table.id == bindparam("credential_id"), *active))
        self._of_customer = Query(
            select(*table.__table__.c)
            .where(table.customer_id == bindparam("customer_id"), *active)
            .order_by(table.created_at.desc(), table.id)
            .limit(bindparam("limit"))
        )

    async def authenticate(self, platform: Platform, secret: str) -> Row | None:
        """The row of an active credential, whose use is recorded; None for any other text."""
        rows = await platform.database.read(self._by_hash, token_hash=secret_hash(secret))
        if not rows:
            return None
        await self._record_use(platform, rows[0])
        return rows[0]

    async def is_active(self, platform: Platform, credential_id: str) -> bool:
        """Whether the credential is still active."""
        return bool(await platform.database.read(self._by_id, credential_id=credential_id))

    async def listed(self, platform: Platform, customer_id: str, limit: int) -> list[Row]:
        """The customer's active credentials, newest first."""
        return await platform.database.read(self._of_customer, customer_id=customer_id, limit=limit)

    async def revoke(self, session: AsyncSession, customer_id: str, credential_id: str) -> None:
        """End a credential. Raises NotFound unless the customer has it."""
        table = self._table
        mine = table.id == credential_id, table.customer_id == customer_id, table.revoked_at.is_(None)
        revoked = update(table).where(*mine).values(revoked_at=now()).returning(table.id)
        if await session.scalar(revoked) is None:
            raise NotFound("credential")

    async def _record_use(self, platform: Platform, row: Row) -> None:
        recorded_before = now() - _USE_RECORDED_EVERY
        if row.last_used_at is not None and row.last_used_at > recorded_before:
            return
        table = self._table
        due = or_(table.last_used_at.is_(None), table.last_used_at <= recorded_before)
        async with platform.database.transaction() as session:
            await session.execute(update(table).where(table.id == row.id, due).values(last_used_at=now()))
