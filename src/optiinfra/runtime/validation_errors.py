"""Validation errors as one line of text."""

from pydantic import ValidationError


def describe(error: ValidationError) -> str:
    """Each error with its location but without the value, which may be a secret."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or '(whole document)'}: {item['msg']}" for item in error.errors()
    )
