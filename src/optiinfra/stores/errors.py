"""What every store raises when it cannot be reached."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

Reason = Callable[[Exception], str | None]
"""What to tell of a client's error if it means that its store is away for now; None if it means anything else."""


class StoreUnavailable(Exception):  # noqa: N818  named after the condition
    """A store did not answer, or not to the end; trying again may help.

    The text reaches whoever calls: it names the store and the kind of error, never an address, a user or a statement.
    """


@contextmanager
def named(store: str, reason: Reason) -> Iterator[None]:
    """Raise StoreUnavailable in place of a store's client's errors that have such a reason; their text is logged."""
    try:
        yield
    except Exception as error:
        if (why := reason(error)) is None:
            raise
        log.warning("a store does not answer", store=store, error=f"{type(error).__name__}: {str(error).strip()[:300]}")
        raise StoreUnavailable(f"{store} does not answer ({why})") from error
