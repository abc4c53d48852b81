"""Commands that the platform issues to a customer's runtime."""

from enum import StrEnum


class CommandStatus(StrEnum):
    """State of a command; `pending` until the runtime acknowledges it or it is cancelled."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
