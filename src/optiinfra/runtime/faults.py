"""What is wrong with what we were handed, in one line."""

from pydantic import ValidationError


def faults(error: ValidationError) -> str:
    """Each fault with its place, but without the value: it may be a secret."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'all of it'}: {item['msg']}" for item in error.errors())
