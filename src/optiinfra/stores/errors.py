"""The error that every store raises during an outage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

OutageReason = Callable[[Exception], str | None]
"""Returns a short reason if a client's error means that its store is temporarily unavailable, else None."""


class StoreUnavailable(Exception):  # noqa: N818  named after the condition
    """A store did not answer, or its answer broke off; a retry may succeed.

    The text is shown to API callers: it names the store and the kind of error, never an address, a user or a statement.
    """


@contextmanager
def translate_errors(store: str, outage_reason: OutageReason) -> Iterator[None]:
    """Raise StoreUnavailable instead of a client's errors that have an outage reason; their own text is logged."""
    try:
        yield
    except Exception as error:
        if (reason := outage_reason(error)) is None:
            raise
        log.warning("store unavailable", store=store, error=f"{type(error).__name__}: {str(error).strip()[:300]}")
        raise StoreUnavailable(f"{store} does not answer ({reason})") from error
