"""Reads outside of transactions: one statement, compiled once, on a connection that can only read."""

import asyncio
from typing import Any

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads
from pydantic import BaseModel
from pydantic_core import from_json
from sqlalchemy import ScalarSelect, Select, func, select
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningInsert

Row = Any
"""One row: its columns are attributes, as those of an entity."""

CONNECTIONS = 16
"""More would only wait for each other: a read takes less than a millisecond."""

_ONLY_READS = "-c default_transaction_read_only=on"
UNSYNCED_WRITES = "-c synchronous_commit=off"


class Query:
    """A SELECT whose variable values are `bindparam`s. It is compiled here, once, and prepared by each connection.

    Or an INSERT with `RETURNING`, for `Database.insert`.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]] | ReturningInsert[*tuple[Any, ...]]) -> None:
        compiled = statement.compile(dialect=psycopg.dialect())  # type: ignore[no-untyped-call]
        self.statement = statement
        self.sql = str(compiled)
        self.constants = {name: value for name, value in compiled.params.items() if value is not None}


def columns(table: type[DeclarativeBase], shape: type[BaseModel]) -> list[InstrumentedAttribute[Any]]:
    """The columns of a table that have the names of a response's fields."""
    return [getattr(table, name) for name in shape.model_fields]


def json_list(rows: Select[*tuple[Any, ...]]) -> ScalarSelect[Any]:
    """A column that holds all rows of another query, each as an object by column name."""
    row = rows.subquery().table_valued()
    return select(func.coalesce(func.json_agg(row), func.json_build_array())).scalar_subquery()


class Reader:
    """Connections in autocommit, opened when they are needed and kept. Each has one cursor, which is reused."""

    def __init__(self, url: str, mode: str = _ONLY_READS, /, **connect_arguments: Any) -> None:
        options = f"{connect_arguments.pop('options', '')} {mode}"
        self._url, self._arguments = url, connect_arguments | {"options": options}
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[AsyncCursor[Row]] = []

    async def rows(self, query: Query, parameters: dict[str, Any]) -> list[Row]:
        """The rows of a query. Raises psycopg's errors."""
        values = query.constants | parameters
        async with self._free:
            if self._idle:
                cursor = self._idle.pop()
                try:
                    return await self._execute(cursor, query, values)
                except OperationalError:
                    if not cursor.connection.closed:
                        raise
                # The server has ended this connection, and probably all idle ones with it: none of them is used again.
                await self.close()
            return await self._execute(await self._connect(), query, values)

    async def close(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for cursor in idle:
            await cursor.connection.close()

    async def _execute(self, cursor: AsyncCursor[Row], query: Query, values: dict[str, Any]) -> list[Row]:
        try:
            await cursor.execute(query.sql, values)
            return await cursor.fetchall()
        finally:
            if cursor.connection.pgconn.transaction_status == TransactionStatus.IDLE:
                self._idle.append(cursor)
            else:
                await cursor.connection.close()

    async def _connect(self) -> AsyncCursor[Row]:
        connection = await AsyncConnection.connect(
            self._url, autocommit=True, row_factory=namedtuple_row, **self._arguments
        )
        set_json_loads(from_json, connection)
        return connection.cursor()
