"""The audit log: entries are appended, read and verified, and never changed."""

import dataclasses
import hashlib

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.audit import AuditEntry, AuditVerification, BrokenChain
from optiinfra.api.common import now
from optiinfra.kit.logging import trace_id
from optiinfra.orchestrator.audit import chain as chains
from optiinfra.orchestrator.audit.chain import PLATFORM, Break, Entry, Stored, Verifier
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models

_BATCH = 1000
_TOMBSTONE = "customer deleted"


async def append(platform: Platform, chain: str, entry: Entry) -> None:
    """Append an entry to a customer's chain; to the platform's, without personal data, if there is no such customer."""
    # Entries of a chain follow one another: those of this process wait without a connection.
    async with platform.audit_appends.place(chain), platform.database.transaction() as session:
        # Locked, so that no entry is written while its customer is deleted.
        known = select(models.Customer.id).where(models.Customer.id == chain).with_for_update(read=True, key_share=True)
        if chain == PLATFORM or await session.scalar(known) is None:
            chain, entry = PLATFORM, chains.anonymous(platform.settings.audit_key, entry)
        stored = await _append(session, platform.settings.audit_key, chain, entry)
    await record_head(platform, stored)


async def record_head(platform: Platform, stored: Stored) -> None:
    """Record a committed entry as the newest of its chain."""
    chain = chains.pseudonym(platform.settings.audit_key, stored.chain)
    await platform.audit_heads.advance(chain, stored.seq, stored.mac)


async def _append(session: AsyncSession, key: str, chain: str, entry: Entry) -> Stored:
    await session.execute(select(func.pg_advisory_xact_lock(_lock_of(chain))))
    stored = chains.append(key, chain, await _last(session, chain), entry)
    session.add(
        models.AuditEntry(
            chain=chain,
            seq=stored.seq,
            mac=stored.mac,
            **{field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)},
        )
    )
    return stored


async def replace_by_tombstone(session: AsyncSession, platform: Platform, customer_id: str, actor_kind: str) -> Stored:
    """Remove the entries of a customer that is being deleted; one in the platform's chain says how many they were.

    After the commit, `record_head` is due for that one.
    """
    await session.execute(select(func.pg_advisory_xact_lock(_lock_of(customer_id))))
    last = await _last(session, customer_id)
    await session.execute(text("SET LOCAL optiinfra.audit_deletion = 'on'"))
    await session.execute(delete(models.AuditEntry).where(models.AuditEntry.chain == customer_id))
    await session.execute(text("SET LOCAL optiinfra.audit_deletion = 'off'"))
    entries, mac = last or (0, "")
    tombstone = Entry(
        at=now(),
        actor_kind=actor_kind,
        actor="",
        action=_TOMBSTONE,
        target={
            "customer_id": chains.pseudonym(platform.settings.audit_key, customer_id),
            "entries": str(entries),
            "newest_mac": mac,
        },
        status=0,
        address="",
        trace_id=trace_id(),
    )
    return await _append(session, platform.settings.audit_key, PLATFORM, tombstone)


async def page(platform: Platform, customer_id: str, after: int, before: int | None, limit: int) -> list[AuditEntry]:
    """A customer's entries numbered above `after`, in order; with `before` only those below it, newest first."""
    table = models.AuditEntry
    query = select(table).where(table.chain == customer_id, table.seq > after)
    query = query.order_by(table.seq) if before is None else query.where(table.seq < before).order_by(table.seq.desc())
    async with platform.database.transaction() as session:
        rows = (await session.scalars(query.limit(limit))).all()
    return [AuditEntry.model_validate(row, from_attributes=True) for row in rows]


async def verify(platform: Platform) -> AuditVerification:
    """Check every chain, and compare its end with what Redis knows of it."""
    key = platform.settings.audit_key
    heads = await platform.audit_heads.all()  # first: entries that are added meanwhile are newer
    verifiers: dict[str, Verifier] = {PLATFORM: Verifier(key, PLATFORM)}
    deleted: set[str] = set()
    rows = select(models.AuditEntry).order_by(models.AuditEntry.chain, models.AuditEntry.seq)
    async with platform.database.transaction() as session:
        async for row in await session.stream_scalars(rows.execution_options(yield_per=_BATCH)):
            verifiers.setdefault(row.chain, Verifier(key, row.chain)).check(_stored(row))
            if row.chain == PLATFORM and row.action == _TOMBSTONE:
                deleted.add(row.target["customer_id"])
            session.expunge(row)
    for verifier in verifiers.values():
        verifier.check_newest(heads.pop(chains.pseudonym(key, verifier.chain), None))
    broken = [verifier.broken for verifier in verifiers.values() if verifier.broken is not None]
    # A whole chain may be gone only with its customer.
    broken += [Break(name, 1, "removed from the end") for name in sorted(heads.keys() - deleted)]
    return AuditVerification(
        verified=not broken,
        chains=len(verifiers),
        entries=sum(verifier.entries for verifier in verifiers.values()),
        broken=[BrokenChain(customer_id=one.chain, seq=one.seq, reason=one.reason) for one in broken],
    )


async def _last(session: AsyncSession, chain: str) -> tuple[int, str] | None:
    table = models.AuditEntry
    query = select(table.seq, table.mac).where(table.chain == chain).order_by(table.seq.desc()).limit(1)
    row = (await session.execute(query)).one_or_none()
    return (row.seq, row.mac) if row else None


def _stored(row: models.AuditEntry) -> Stored:
    entry = Entry(**{field.name: getattr(row, field.name) for field in dataclasses.fields(Entry)})
    return Stored(row.chain, row.seq, entry, row.mac)


def _lock_of(chain: str) -> int:
    """The number of the advisory lock under which the chain grows."""
    return int.from_bytes(hashlib.sha256(f"audit:{chain}".encode()).digest()[:8], "big", signed=True)
