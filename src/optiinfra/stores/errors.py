"""What every store raises when it cannot be reached."""

from collections.abc import Iterator
from contextlib import contextmanager


class StoreUnavailable(Exception):  # noqa: N818  named after the condition
    """A store did not answer, or not to the end; trying again may help. The text names the store and what was seen."""


@contextmanager
def named(store: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise StoreUnavailable in place of these errors of a store's client."""
    try:
        yield
    except errors as error:
        raise StoreUnavailable(f"{store}: {type(error).__name__}: {str(error).strip()[:300]}") from error
