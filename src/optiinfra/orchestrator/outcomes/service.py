"""Results of completed optimizations, stored for later predictions."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from optiinfra.api.agents import Draft
from optiinfra.api.recommendations import Result
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database


async def store(platform: Platform, optimization: models.Optimization, draft: Draft, result: Result) -> None:
    """Store the outcome in PostgreSQL and, for similarity search, in Qdrant. Idempotent.

    Figures that were not measured are left out; without any, nothing is stored.
    """
    measured = {"savings": result.actual_savings, "p95_latency_ms": result.p95_after}
    known = {figure: value for figure, value in measured.items() if value is not None}
    if not known:
        return
    statement = insert(models.Outcome).values(
        optimization_id=optimization.id,
        customer_id=optimization.customer_id,
        type=draft.type,
        features=draft.features,
        modelled=draft.modelled,
        measured=known,
    )
    # PostgreSQL first, so that a concurrent customer deletion leaves nothing in Qdrant.
    async with platform.database.transaction() as session:
        stored = await session.execute(statement.on_conflict_do_nothing().returning(models.Outcome.optimization_id))
        if stored.scalar() is not None:
            payload = {"modelled": draft.modelled, "measured": known}
            await record(
                session,
                optimization.customer_id,
                "outcome_stored",
                "orchestrator",
                payload,
                optimization_id=optimization.id,
            )
    await platform.memory.store(
        optimization.customer_id, optimization.id, draft.type, draft.features, draft.modelled, known
    )


async def known(database: Database, customer_id: str) -> set[str]:
    """The ids of the customer's outcomes."""
    table = models.Outcome
    async with database.transaction() as session:
        return set(await session.scalars(select(table.optimization_id).where(table.customer_id == customer_id)))
