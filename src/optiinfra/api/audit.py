"""The audit log as customers read it, and its verification."""

from optiinfra.api.common import Moment, Wire

END = 2**62
"""A number above that of every entry."""


class AuditEntry(Wire):
    """Who did what to what, from which address, and with which status it was answered."""

    seq: int
    at: Moment
    actor_kind: str
    actor: str
    action: str
    target: dict[str, str]
    status: int
    address: str
    trace_id: str


class BrokenChain(Wire):
    """The first entry at which a customer's chain is not what was written; the platform's has no customer.

    The customer of a chain that is gone as a whole is shown by a pseudonym.
    """

    customer_id: str
    seq: int
    reason: str


class AuditVerification(Wire):
    """Whether all entries are as they were written."""

    verified: bool
    chains: int
    entries: int
    broken: list[BrokenChain]
