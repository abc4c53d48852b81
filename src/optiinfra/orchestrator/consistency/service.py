"""Do the stores and clouds agree with each other? What is looked at, by kind:

- ClickHouse: `samples`, `latency_counts` (whose they are, by customer and deployment);
- Qdrant: `points` without their outcome in PostgreSQL, and `outcomes` there without their point;
- Redis: `presence` of agents that are not registered;
- PostgreSQL, what no foreign key guards: `events`, `similar_outcomes`, `optimizations` and `analyses` under way that no
  workflow carries out, `workflows` and `workflow_records` (DBOS's own tables) whose row is gone, pending `commands` of
  optimizations that ended, `replicas` on instances that no account has, `running_instances` that their account does not
  know (not those that it shows as ended: they are stale until the next refresh);
- each cloud account in PostgreSQL: `step_instances` and `step_orders` (open spot requests) made for a step of an
  optimization that does not exist, or to be used by one that was rolled back.

A store or account that cannot be asked, or does not answer in time, is reported as `unreachable`, and the rest is
looked at all the same.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.api.consistency import Consistency, Dangling, StoreName
from optiinfra.orchestrator.agents.service import presence_seconds
from optiinfra.orchestrator.consistency import rules
from optiinfra.orchestrator.consistency.rules import Account, CloudView, Known, PlacedReplica, RunningInstance
from optiinfra.orchestrator.consistency.soft_references import SOFT_REFERENCES, dangling_in
from optiinfra.orchestrator.inventory.clouds import cloud_of
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.clickhouse import TableName
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TABLES: tuple[TableName, ...] = ("samples", "latency_counts")
_SETTLING_SECONDS = 1.0
"""Between the two looks: longer than anything is half made while all goes well."""
_ACCOUNTS_AT_ONCE = 16
_ANSWER_SECONDS = 8.0
"""How long a store or account may take: less than our patience with a cloud, for the caller waits for all of them."""
_ALL_ACCOUNTS_SECONDS = 16.0
"""How long all accounts may take together, however many do not answer."""


@dataclass
class _Look:
    """What one look has come to so far. What is `given_up` is not asked once more, but reported as it was."""

    checked: dict[str, int] = field(default_factory=dict)
    dangling: list[Dangling] = field(default_factory=list)
    given_up: list[Dangling] = field(default_factory=list)

    def note(self, kind: str, count: int, found: Iterable[Dangling]) -> None:
        self.checked[kind] = self.checked.get(kind, 0) + count
        self.dangling += found

    async def asked(
        self, store: StoreName, name: str, ask: Callable[[], Awaitable[T]], where: str = "", until: float = math.inf
    ) -> T | None:
        """The answer; None, and noted, when there is none in time. `until` is a time of the loop's own clock.

        `where` begins what is said of an answer that did not come.
        """
        if known := [each for each in self.given_up if (each.store, each.id) == (store, name)]:
            self.dangling += known
            return None
        try:
            async with asyncio.timeout_at(min(until, asyncio.get_running_loop().time() + _ANSWER_SECONDS)):
                return await ask()
        except Exception as error:  # whatever it is: what was not seen must not count as consistent
            why = where + (f"{type(error).__name__}: {error}" if str(error) else "no answer in time")
            log.warning("consistency not seen", store=store, name=name, error=why)
            self.dangling.append(Dangling(store=store, kind=rules.UNREACHABLE, id=name, refers_to=why))
            return None


async def check(platform: Platform) -> Consistency:
    """Look; and where something dangles look once more, for it may have been half made or half gone.

    What did not answer the first time is not asked again: the caller waits.
    """
    seen = await _look(platform, [])
    dangling = seen.dangling
    if any(one.kind != rules.UNREACHABLE for one in dangling):
        await asyncio.sleep(_SETTLING_SECONDS)
        seen = await _look(platform, [one for one in dangling if one.kind == rules.UNREACHABLE])
        dangling = rules.confirmed(dangling, seen.dangling)
    return Consistency(consistent=not dangling, checked=seen.checked, dangling=dangling)


async def _look(platform: Platform, given_up: list[Dangling]) -> _Look:
    look = _Look(given_up=given_up)
    series, points, present, placed, _ = await asyncio.gather(
        asyncio.gather(*(_series(platform, look, table) for table in _TABLES)),
        look.asked("qdrant", "outcomes", platform.memory.points),
        look.asked("redis", "presence", platform.presence.agent_ids),
        look.asked("postgresql", "estates", lambda: _estates(platform)),
        look.asked("postgresql", "references", lambda: _soft_references(platform, look)),
    )
    accounts, replicas, running = placed or ([], [], [])
    views = await _views(platform, look, accounts)
    known = await look.asked("postgresql", "known", lambda: _known(platform))
    if known is None:
        return look
    for table, owners in zip(_TABLES, series, strict=True):
        if owners is not None:
            look.note(table, len(owners), rules.series_of_nobody(table, owners, known))
    if points is not None:
        look.note("points", len(points), rules.points_of_nothing(points, known))
        look.note("outcomes", len(known.outcomes), rules.outcomes_without_point(points, known))
    if present is not None:
        look.note("presence", len(present), rules.presence_of_nobody(present, known))
    look.note("replicas", len(replicas), rules.unplaced(replicas, views, [_account(row) for row in accounts]))
    look.note("running_instances", len(running), rules.vanished(running, views, now()))
    look.note("cloud_accounts", len(views), ())
    look.note("step_instances", sum(len(rules.made_for_steps(view)) for view in views), ())
    look.note("step_orders", sum(len(view.orders) for view in views), ())
    look.dangling += dict.fromkeys(left for view in views for left in rules.left_in_cloud(view, known))
    return look


async def _series(platform: Platform, look: _Look, table: TableName) -> set[tuple[str, str]] | None:
    return await look.asked("clickhouse", table, lambda: platform.telemetry.owners(table))


async def _soft_references(platform: Platform, look: _Look) -> None:
    for kind in SOFT_REFERENCES:
        async with platform.database.transaction() as session:
            look.note(kind, *await dangling_in(session, kind))


async def _estates(platform: Platform) -> tuple[list[models.CloudAccount], list[PlacedReplica], list[RunningInstance]]:
    async with platform.database.transaction() as session:
        replicas = [PlacedReplica(*row) for row in await session.execute(_REPLICAS)]
        running = [RunningInstance(*row) for row in await session.execute(_RUNNING)]
        accounts = list(await session.scalars(select(models.CloudAccount)))
    return accounts, replicas, running


_REPLICAS = text(
    """SELECT replica ->> 'replica_id', replica ->> 'instance_id', d.id, d.customer_id,
              d.described ->> 'provider', d.described ->> 'region'
         FROM deployments AS d CROSS JOIN jsonb_array_elements(d.described -> 'replicas') AS replica
        WHERE d.gone_at IS NULL AND replica ->> 'state' <> 'dead'"""
)
_RUNNING = select(models.Instance.instance_id, models.Instance.cloud_account_id, models.Instance.seen_at).where(
    models.Instance.state == "running"
)


async def _views(platform: Platform, look: _Look, accounts: Iterable[models.CloudAccount]) -> list[CloudView]:
    limit, until = asyncio.Semaphore(_ACCOUNTS_AT_ONCE), asyncio.get_running_loop().time() + _ALL_ACCOUNTS_SECONDS

    async def view(row: models.CloudAccount) -> CloudView | None:
        async with limit:
            where = f"{row.provider} {row.region} as {row.role_arn}: "
            return await look.asked("cloud", row.id, partial(_view, platform, row), where, until)

    found = await asyncio.gather(*(view(row) for row in accounts))
    return [each for each in found if each is not None]


async def _view(platform: Platform, row: models.CloudAccount) -> CloudView:
    cloud = await cloud_of(platform.settings, row)
    return CloudView(_account(row), await cloud.instances(), await cloud.open_requests())


async def _known(platform: Platform) -> Known:
    async with platform.database.transaction() as session:
        return Known(
            customers=set(await session.scalars(select(models.Customer.id))),
            deployments={(row[0], row[1]) for row in await session.execute(_DEPLOYMENTS)},
            outcomes={row[0]: row[1] for row in await session.execute(_OUTCOMES)},
            optimizations={row[0]: row[1] for row in await session.execute(_STATES)},
            agents=await _agents_with_keys(session, platform),
        )


_DEPLOYMENTS = select(models.Deployment.customer_id, models.Deployment.id)
_OUTCOMES = select(models.Outcome.optimization_id, models.Outcome.customer_id)
_STATES = select(models.Optimization.id, models.Optimization.status)


async def _agents_with_keys(session: AsyncSession, platform: Platform) -> set[str]:
    """Agents that are registered, or left so lately that their key may not have expired."""
    table = models.Agent
    lately = now() - timedelta(seconds=presence_seconds(platform.settings.heartbeat_seconds))
    here = or_(table.deregistered_at.is_(None), table.deregistered_at > lately)
    return set(await session.scalars(select(table.id).where(here)))


def _account(row: models.CloudAccount) -> Account:
    return Account(row.id, row.customer_id, row.provider, row.region)
