"""Migrations of a database, its schema and its rows."""

from typing import Any

from alembic.config import Config
from sqlalchemy import Connection, text

from optiinfra.stores.postgres import database

Rows = list[dict[str, Any]]
Content = dict[str, Rows]
"""Rows by table."""

Schema = set[tuple[Any, ...]]
"""The columns, indexes and constraints of all tables."""

_VERSION_TABLE = "alembic_version"

_COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
     WHERE table_schema = current_schema"""
_CONSTRAINTS = """
    SELECT c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint AS c
     WHERE c.connamespace = current_schema::regnamespace"""
_INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema"


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for migrations over this connection."""
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def describe(connection: Connection) -> Schema:
    """Every column, constraint and index of the current schema, without the schema's name."""
    (schema,) = connection.execute(text("SELECT current_schema")).one()
    rows = [tuple(row) for query in (_COLUMNS, _CONSTRAINTS, _INDEXES) for row in connection.execute(text(query))]
    return {tuple(part.replace(f"{schema}.", "") if isinstance(part, str) else part for part in row) for row in rows}


def tables(connection: Connection) -> list[str]:
    """The tables of the current schema, without Alembic's own."""
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema AND tablename <> :own")
    return [table for (table,) in connection.execute(query, {"own": _VERSION_TABLE})]


def content(connection: Connection) -> Content:
    """All rows of all tables, in a fixed order."""
    return {
        table: sorted((dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()), key=str)  # noqa: S608
        for table in tables(connection)
    }


def shared_columns(one: Content, other: Content, table: str) -> set[str]:
    """The columns that both have of a table; all of one, if the other has no row."""
    columns = [set(rows[0]) for rows in (one[table], other[table]) if rows]
    return set.intersection(*columns) if columns else set()


def project(rows: Rows, columns: set[str]) -> list[str]:
    """The rows with these columns only, in a comparable form and a fixed order."""
    return sorted(repr({name: row[name] for name in sorted(columns)}) for row in rows)
