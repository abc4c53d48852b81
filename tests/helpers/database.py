"""Changes in the environment's PostgreSQL that no route makes."""

from typing import Any

import psycopg


def update_one(environment: dict[str, Any], statement: str, *values: object) -> None:
    """Run an UPDATE that must change exactly one row; `%s` are placeholders for the values."""
    with psycopg.connect(environment["urls"]["postgresql"].replace("+psycopg", "")) as connection:
        changed = connection.execute(statement.encode(), values).rowcount
        assert changed == 1, f"{statement!r} with {values} changed {changed} rows, not one"
