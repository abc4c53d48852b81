"""Outcomes: what completed optimizations brought, kept for the next prediction."""

from sqlalchemy.dialects.postgresql import insert

from optiinfra.api.agents import Draft
from optiinfra.api.recommendations import Result
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models


async def store(platform: Platform, optimization: models.Optimization, draft: Draft, result: Result) -> None:
    """Keep the outcome in PostgreSQL and, to be found by similarity, in Qdrant. Harmless to repeat.

    Figures that were not measured are left out; without any, nothing is kept.
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
    # PostgreSQL first: a customer that is deleted meanwhile may leave nothing in Qdrant.
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
