"""Which constraint of the schema a statement violated."""

from psycopg import errors
from sqlalchemy.exc import IntegrityError


def is_foreign_key_violation(error: IntegrityError) -> bool:
    """Whether a row refers to one that is not there (SQLSTATE 23503)."""
    return isinstance(error.orig, errors.ForeignKeyViolation)


def is_unique_violation(error: IntegrityError, constraint: str) -> bool:
    """Whether a row with the same value is there already (SQLSTATE 23505), by the constraint of this name."""
    return isinstance(error.orig, errors.UniqueViolation) and error.orig.diag.constraint_name == constraint
