"""Transactions, reads outside of them, and migration to the newest schema."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from optiinfra.stores.errors import translate_errors
from optiinfra.stores.postgres.reads import UNSYNCED_WRITES, Query, Reader, Row

CONNECT_ARGUMENTS = {
    "connect_timeout": 5,
    # A dead connection is detected within half a minute, not within hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# Longer than any statement of ours takes, and longer than a transaction waits for a cloud.
_TIMEOUTS = "-c statement_timeout=120s -c idle_in_transaction_session_timeout=600s"

MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 7_203_517_001  # any number that no other advisory lock uses


class Database:
    """One PostgreSQL database. `notify` is called with each channel of `notify_after_commit` after the commit."""

    def __init__(self, url: str, notify: Callable[[str], Awaitable[None]]) -> None:
        self._engine = create_async_engine(
            url,
            pool_size=20,
            max_overflow=20,
            pool_timeout=5,
            pool_pre_ping=True,
            hide_parameters=True,  # customers' values have no place in a log
            connect_args=CONNECT_ARGUMENTS | {"options": _TIMEOUTS},
        )
        address = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._reader = Reader(address, options=_TIMEOUTS, **CONNECT_ARGUMENTS)
        self._inserter = Reader(address, UNSYNCED_WRITES, options=_TIMEOUTS, **CONNECT_ARGUMENTS)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._notify = notify
        self._notifying: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end, rolled back on an exception; StoreUnavailable when it cannot be.

        Channels registered by `notify_after_commit` are notified after the commit, so that readers find the new rows.
        Nobody waits for the notifications: they only save polling time, and Redis may be unavailable.
        """
        async with self._sessions() as session:
            with translate_errors("PostgreSQL", outage_reason):
                async with session.begin():
                    yield session
            for channel in sorted(session.info.get("channels", ())):
                notifying = asyncio.ensure_future(self._notify(channel))
                self._notifying.add(notifying)
                notifying.add_done_callback(self._notifying.discard)

    async def read(self, query: Query, **parameters: Any) -> list[Row]:
        """The rows of one query as of now, outside of any transaction; StoreUnavailable when there is no answer."""
        with translate_errors("PostgreSQL", outage_reason):
            return await self._reader.rows(query, parameters)

    async def insert(self, query: Query, **parameters: Any) -> list[Row]:
        """Run one INSERT in a transaction of its own, and return its rows; StoreUnavailable when there is no answer.

        For frequent rows that may be lost when PostgreSQL crashes: it does not wait for the disk.
        """
        with translate_errors("PostgreSQL", outage_reason):
            return await self._inserter.rows(query, parameters)

    async def ping(self) -> None:
        """Raise StoreUnavailable if the server does not answer a query."""
        with translate_errors("PostgreSQL", outage_reason):
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def migrate(self) -> None:
        """Migrate the schema to the newest revision. Of several starting processes one migrates, the others wait."""
        async with self._engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*self._notifying, return_exceptions=True)
        await self._reader.close()
        await self._inserter.close()
        await self._engine.dispose()


def notify_after_commit(session: AsyncSession, channel: str) -> None:
    """Notify a channel's readers when this session's transaction has committed."""
    session.info.setdefault("channels", set()).add(channel)


def outage_reason(error: Exception) -> str | None:
    """The server refuses or ends connections, whatever the class of the error, or all connections are in use."""
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return type(error).__name__
    if isinstance(error, DBAPIError):
        disconnected = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
        return type(error.orig).__name__ if disconnected else None
    return "no connection is free" if isinstance(error, PoolTimeout) else None


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
