"""Consistency check between stores and clouds. References checked, by kind:

- ClickHouse: `samples`, `latency_counts` (their customer and deployment);
- Qdrant: `points` without their outcome in PostgreSQL, and `outcomes` there without their point;
- Redis: `presence` of agents that are not registered;
- PostgreSQL, where no foreign key guards a reference: `events`, `similar_outcomes`, unfinished `optimizations` and
  `analyses` without a workflow, `workflows` and `workflow_records` (DBOS's own tables) without their row, pending
  `commands` of optimizations that ended, `replicas` on instances that no account lists, `running_instances` that their
  account does not list (one that it lists as terminated is merely stale until the next refresh);
- each cloud account: `step_instances` and `step_spot_requests` (open spot requests) that were created for a step of an
  optimization that does not exist, or as targets of one that was rolled back.

A store or account that does not answer in time is reported as `unreachable`, and the rest is checked all the same.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from optiinfra.api.common import now
from optiinfra.api.consistency import Consistency, Dangling, StoreName
from optiinfra.orchestrator.consistency import repository, rules
from optiinfra.orchestrator.consistency.rules import AccountContents
from optiinfra.orchestrator.consistency.soft_references import SOFT_REFERENCES, dangling_in
from optiinfra.orchestrator.inventory.clouds import cloud_of
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.clickhouse import TableName
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TABLES: tuple[TableName, ...] = ("samples", "latency_counts")
CONCURRENT_ACCOUNTS = 16
"""How many cloud accounts are asked at the same time."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a check may take, in seconds."""

    answer: float = 8.0
    """One store or account: shorter than the cloud client's own retries, because the caller waits for all answers."""
    all_accounts: float = 16.0
    """All accounts together, however many do not answer."""
    between_passes: float = 1.0
    """Longer than a reference normally dangles while an object is being created or deleted."""


@dataclass
class _Pass:
    """The findings of one pass. What is `unreachable` already is not asked again, but reported as before."""

    deadlines: Deadlines
    checked: dict[str, int] = field(default_factory=dict)
    dangling: list[Dangling] = field(default_factory=list)
    unreachable: list[Dangling] = field(default_factory=list)

    def add(self, kind: str, count: int, found: Iterable[Dangling]) -> None:
        self.checked[kind] = self.checked.get(kind, 0) + count
        self.dangling += found

    async def ask(
        self,
        store: StoreName,
        name: str,
        question: Callable[[], Awaitable[T]],
        where: str = "",
        until: float = math.inf,
    ) -> T | None:
        """The answer, or None after the deadline, which is recorded as unreachable; `where` starts its text.

        `until` is a time of the event loop's clock.
        """
        if known := [each for each in self.unreachable if (each.store, each.id) == (store, name)]:
            self.dangling += known
            return None
        try:
            async with asyncio.timeout_at(min(until, asyncio.get_running_loop().time() + self.deadlines.answer)):
                return await question()
        except Exception as error:  # any error: an unchecked reference must not count as consistent
            why = where + (f"{type(error).__name__}: {error}" if str(error) else "no answer in time")
            log.warning("consistency check incomplete", store=store, name=name, error=why)
            self.dangling.append(Dangling(store=store, kind=rules.UNREACHABLE, id=name, refers_to=why))
            return None


async def check(platform: Platform, deadlines: Deadlines | None = None) -> Consistency:
    """Check everything, and a second time if something dangles: it may have been half created or half deleted.

    A store or account that did not answer is not asked a second time, because the caller waits.
    """
    deadlines = deadlines or Deadlines()
    result = await _check_once(platform, _Pass(deadlines))
    dangling = result.dangling
    if any(one.kind != rules.UNREACHABLE for one in dangling):
        await asyncio.sleep(deadlines.between_passes)
        unreachable = [one for one in dangling if one.kind == rules.UNREACHABLE]
        result = await _check_once(platform, _Pass(deadlines, unreachable=unreachable))
        dangling = rules.confirmed(dangling, result.dangling)
    return Consistency(consistent=not dangling, checked=result.checked, dangling=dangling)


async def _check_once(platform: Platform, result: _Pass) -> _Pass:
    """Do one pass. References are listed first, their targets last (see `rules`)."""
    database = platform.database
    series, points, present, estates, _ = await asyncio.gather(
        asyncio.gather(*(_series(platform, result, table) for table in _TABLES)),
        result.ask("qdrant", "outcomes", platform.memory.points),
        result.ask("redis", "presence", platform.presence.agent_ids),
        result.ask("postgresql", "estates", lambda: repository.estates(database)),
        result.ask("postgresql", "references", lambda: _soft_references(platform, result)),
    )
    accounts, replicas, running = estates or ([], [], [])
    contents = await _contents_of_accounts(platform, result, accounts)
    heartbeat_seconds = platform.settings.heartbeat_seconds
    known = await result.ask("postgresql", "known", lambda: repository.known(database, heartbeat_seconds))
    if known is None:
        return result
    for table, owners in zip(_TABLES, series, strict=True):
        if owners is not None:
            result.add(table, len(owners), rules.dangling_series(table, owners, known))
    if points is not None:
        result.add("points", len(points), rules.dangling_points(points, known))
        result.add("outcomes", len(known.outcomes), rules.outcomes_without_point(points, known))
    if present is not None:
        result.add("presence", len(present), rules.dangling_presence(present, known))
    known_accounts = [repository.account(row) for row in accounts]
    result.add("replicas", len(replicas), rules.replicas_without_instance(replicas, contents, known_accounts))
    result.add("running_instances", len(running), rules.missing_instances(running, contents, now()))
    result.add("cloud_accounts", len(contents), ())
    result.add("step_instances", sum(len(rules.step_instances(each)) for each in contents), ())
    result.add("step_spot_requests", sum(len(each.requests) for each in contents), ())
    dangling = (found for each in contents for found in rules.dangling_step_resources(each, known))
    result.dangling += dict.fromkeys(dangling)  # once, where two roles lead to one account
    return result


async def _series(platform: Platform, result: _Pass, table: TableName) -> set[tuple[str, str]] | None:
    return await result.ask("clickhouse", table, lambda: platform.telemetry.owners(table))


async def _soft_references(platform: Platform, result: _Pass) -> None:
    for kind in SOFT_REFERENCES:
        async with platform.database.transaction() as session:
            result.add(kind, *await dangling_in(session, kind))


async def _contents_of_accounts(
    platform: Platform, result: _Pass, accounts: Iterable[models.CloudAccount]
) -> list[AccountContents]:
    """The contents of every account that answers."""
    limit = asyncio.Semaphore(CONCURRENT_ACCOUNTS)
    until = asyncio.get_running_loop().time() + result.deadlines.all_accounts

    async def contents(row: models.CloudAccount) -> AccountContents | None:
        async with limit:
            where = f"{row.provider} {row.region} as {row.role_arn}: "
            return await result.ask("cloud", row.id, partial(_contents, platform, row), where, until)

    found = await asyncio.gather(*(contents(row) for row in accounts))
    return [each for each in found if each is not None]


async def _contents(platform: Platform, row: models.CloudAccount) -> AccountContents:
    cloud = await cloud_of(platform.settings, row)
    return AccountContents(repository.account(row), await cloud.instances(), await cloud.open_requests())
