"""Reading and changing the environment's PostgreSQL as no route does."""

from typing import Any

import psycopg


def execute(environment: dict[str, Any], statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement, in which `%s` are placeholders for the values; returns its rows, if it has any."""
    with connect(environment) as connection:
        done = connection.execute(statement.encode(), values)
        return done.fetchall() if done.description else []


def update_one(environment: dict[str, Any], statement: str, *values: object) -> None:
    """Run an UPDATE that must change exactly one row; `%s` are placeholders for the values."""
    with connect(environment) as connection:
        changed = connection.execute(statement.encode(), values).rowcount
        assert changed == 1, f"{statement!r} with {values} changed {changed} rows, not one"


def connect(environment: dict[str, Any], *, autocommit: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection; as a context manager it commits, and closes, at the end."""
    return psycopg.connect(environment["urls"]["postgresql"].replace("+psycopg", ""), autocommit=autocommit)
