"""Optimizations as their customer sees them, and the request for a rollback."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.recommendations import Optimization, Result, Step
from optiinfra.domain.optimization import FINAL, OptimizationStatus, is_rollback
from optiinfra.orchestrator.errors import Conflict, NotFound
from optiinfra.orchestrator.optimizations.conflicts import require_no_other_change
from optiinfra.orchestrator.optimizations.journal import ON_REQUEST
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database


async def listing(database: Database, customer_id: str, limit: int) -> list[Optimization]:
    """The customer's optimizations, newest first."""
    table = models.Optimization
    mine = select(table).where(table.customer_id == customer_id).order_by(table.created_at.desc()).limit(limit)
    async with database.transaction() as session:
        return await _to_wire(session, (await session.scalars(mine)).all())


async def get(database: Database, customer_id: str, optimization_id: str) -> Optimization:
    """One optimization; NotFound when the customer has none of that id."""
    async with database.transaction() as session:
        (shown,) = await _to_wire(session, [await _get(session, customer_id, optimization_id)])
    return shown


async def request_rollback(database: Database, customer_id: str, optimization_id: str) -> Optimization:
    """Record the request of a rollback.

    Raises Conflict if there is nothing left to roll back, or while another optimization changes the same resources.
    """
    async with database.transaction() as session:
        row = await _get(session, customer_id, optimization_id, lock=True)
        if row.status in FINAL and row.status != OptimizationStatus.COMPLETED:
            raise Conflict("not_executable", f"the optimization is {row.status}: there is nothing to roll back")
        if row.status == OptimizationStatus.COMPLETED and row.rollback_reason is None:
            await require_no_other_change(session, await session.get_one(models.Recommendation, row.recommendation_id))
        row.rollback_reason = row.rollback_reason or ON_REQUEST
        (shown,) = await _to_wire(session, [row])
    return shown


async def _get(
    session: AsyncSession, customer_id: str, optimization_id: str, *, lock: bool = False
) -> models.Optimization:
    row = await session.get(models.Optimization, optimization_id, with_for_update=lock)
    if row is None or row.customer_id != customer_id:
        raise NotFound("optimization")
    return row


async def _to_wire(session: AsyncSession, rows: Sequence[models.Optimization]) -> list[Optimization]:
    table = models.OptimizationStep
    query = select(table).where(table.optimization_id.in_([row.id for row in rows])).order_by(table.position)
    steps: defaultdict[str, list[Step]] = defaultdict(list)
    for step in await session.scalars(query):
        steps[step.optimization_id].append(Step.model_validate(step, from_attributes=True))
    return [
        Optimization(
            id=row.id,
            recommendation_id=row.recommendation_id,
            type=row.type,
            status=row.status,
            started_at=row.started_at,
            completed_at=row.completed_at,
            execution_steps=[step for step in steps[row.id] if not is_rollback(step.name)],
            rollback_steps=[step for step in steps[row.id] if is_rollback(step.name)],
            result=Result.model_validate(row.result) if row.result else None,
        )
        for row in rows
    ]
