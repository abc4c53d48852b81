"""The chain of audit entries: each is authenticated together with the one before it. Pure.

Whoever changes, removes or inserts an entry needs the key, which is not in the database.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

PLATFORM = ""
"""The chain of what belongs to no customer, or to one that has been deleted."""

_FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """Who did what to what, from where, and how it was answered.

    `actor_kind` is that of `kit.auth.Principal`, or `anonymous`; `actor` its subject. `target` holds the ids in the
    path.
    """

    at: datetime
    actor_kind: str
    actor: str
    action: str
    target: dict[str, str]
    status: int
    address: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry at its place in a chain."""

    chain: str
    seq: int
    entry: Entry
    mac: str


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry of a chain at which it is not what was written."""

    chain: str
    seq: int
    reason: str


def append(key: str, chain: str, last: tuple[int, str] | None, entry: Entry) -> Stored:
    """The entry after the chain's last one (its number and MAC; None for the first)."""
    seq, previous = (last[0] + 1, last[1]) if last else (1, _FIRST)
    return Stored(chain, seq, entry, _mac(key, previous, chain, seq, entry))


def anonymous(key: str, entry: Entry) -> Entry:
    """The entry without personal data: ids are replaced by pseudonyms, the address is left out."""
    target = {name: pseudonym(key, value) for name, value in entry.target.items()}
    return replace(entry, actor=pseudonym(key, entry.actor) if entry.actor else "", target=target, address="")


def pseudonym(key: str, value: str) -> str:
    """What stands for a value: the same each time, and telling nothing without the key."""
    return "anon_" + hmac.new(key.encode(), value.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:24]


class Verifier:
    """Checks the entries of one chain in their order."""

    def __init__(self, key: str, chain: str) -> None:
        self._key, self.chain = key, chain
        self._previous = _FIRST
        self.entries = 0
        self.broken: Break | None = None

    def check(self, stored: Stored) -> None:
        """Check the next entry. After the first break nothing more is reported."""
        if self.broken is not None:
            return
        expected = self.entries + 1
        if stored.seq != expected:
            self.broken = Break(self.chain, expected, "missing")
        elif not hmac.compare_digest(stored.mac, _mac(self._key, self._previous, self.chain, stored.seq, stored.entry)):
            self.broken = Break(self.chain, stored.seq, "altered")
        self._previous, self.entries = stored.mac, stored.seq

    def check_newest(self, head: tuple[int, str] | None) -> None:
        """Compare the end with the newest entry that is known outside of the database, by its number and MAC."""
        if self.broken is not None or head is None:
            return
        if head[0] > self.entries:
            self.broken = Break(self.chain, self.entries + 1, "removed from the end")
        elif head[0] == self.entries and not hmac.compare_digest(head[1], self._previous):
            self.broken = Break(self.chain, head[0], "altered")


def _mac(key: str, previous: str, chain: str, seq: int, entry: Entry) -> str:
    fields = [
        previous,
        chain,
        seq,
        entry.at.astimezone(UTC).isoformat(),
        entry.actor_kind,
        entry.actor,
        entry.action,
        sorted(entry.target.items()),
        entry.status,
        entry.address,
        entry.trace_id,
    ]
    return hmac.new(key.encode(), json.dumps(fields).encode(), hashlib.sha256).hexdigest()
