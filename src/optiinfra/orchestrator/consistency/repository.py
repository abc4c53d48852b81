"""SQL of the consistency check."""

from datetime import timedelta

from sqlalchemy import or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.orchestrator.agents.service import presence_seconds
from optiinfra.orchestrator.consistency.rules import Account, Known, PlacedReplica, RunningInstance
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database

_REPLICAS = text(
    """SELECT replica ->> 'replica_id', replica ->> 'instance_id', d.id, d.customer_id,
              d.described ->> 'provider', d.described ->> 'region'
         FROM deployments AS d CROSS JOIN jsonb_array_elements(d.described -> 'replicas') AS replica
        WHERE d.gone_at IS NULL AND replica ->> 'state' <> 'dead'"""
)
_RUNNING = select(models.Instance.instance_id, models.Instance.cloud_account_id, models.Instance.seen_at).where(
    models.Instance.state == "running"
)
_DEPLOYMENTS = select(models.Deployment.customer_id, models.Deployment.id)
_OUTCOMES = select(models.Outcome.optimization_id, models.Outcome.customer_id)
_STATUSES = select(models.Optimization.id, models.Optimization.status)


async def estates(database: Database) -> tuple[list[models.CloudAccount], list[PlacedReplica], list[RunningInstance]]:
    """All cloud accounts, replicas that are not dead and running instances, in one transaction."""
    async with database.transaction() as session:
        replicas = [PlacedReplica(*row) for row in await session.execute(_REPLICAS)]
        running = [RunningInstance(*row) for row in await session.execute(_RUNNING)]
        accounts = list(await session.scalars(select(models.CloudAccount)))
    return accounts, replicas, running


async def known(database: Database, heartbeat_seconds: float) -> Known:
    """The existing objects that references may refer to."""
    async with database.transaction() as session:
        return Known(
            customers=set(await session.scalars(select(models.Customer.id))),
            deployments={(row[0], row[1]) for row in await session.execute(_DEPLOYMENTS)},
            outcomes={row[0]: row[1] for row in await session.execute(_OUTCOMES)},
            optimizations={row[0]: row[1] for row in await session.execute(_STATUSES)},
            agents=await _agents_with_presence(session, heartbeat_seconds),
        )


def account(row: models.CloudAccount) -> Account:
    """A cloud account as the rules take it."""
    return Account(row.id, row.customer_id, row.provider, row.region)


async def _agents_with_presence(session: AsyncSession, heartbeat_seconds: float) -> set[str]:
    """Agents that are registered, or deregistered so recently that their key may not have expired."""
    table = models.Agent
    recently = now() - timedelta(seconds=presence_seconds(heartbeat_seconds))
    query = select(table.id).where(or_(table.deregistered_at.is_(None), table.deregistered_at > recently))
    return set(await session.scalars(query))
