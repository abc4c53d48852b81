"""What a test has to turn in the environment's own PostgreSQL, because no route does it."""

from typing import Any

import psycopg


def change_one(environment: dict[str, Any], statement: str, *values: object) -> None:
    """Run an UPDATE that changes exactly one row; `%s` stand for the values."""
    with psycopg.connect(environment["urls"]["postgresql"].replace("+psycopg", "")) as connection:
        changed = connection.execute(statement.encode(), values).rowcount
        assert changed == 1, f"{statement!r} with {values} changed {changed} rows, not one"
