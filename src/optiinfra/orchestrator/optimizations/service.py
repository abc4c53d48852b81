"""Optimizations as their customer sees them, and the request for a rollback."""

from sqlalchemy import bindparam, select

from optiinfra.api.recommendations import Optimization, Result, Step
from optiinfra.domain.optimization import FINAL, OptimizationStatus, is_rollback
from optiinfra.orchestrator.errors import Conflict, NotFound
from optiinfra.orchestrator.idempotency import KeyedRequest, remember, replay
from optiinfra.orchestrator.optimizations.conflicts import require_no_other_change
from optiinfra.orchestrator.optimizations.journal import ON_REQUEST
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.postgres.reads import Query, Row, columns, json_list

_STEPS = (
    select(*columns(models.OptimizationStep, Step))
    .where(models.OptimizationStep.optimization_id == models.Optimization.id)
    .order_by(models.OptimizationStep.position)
    .correlate(models.Optimization)
)
_MINE = select(
    models.Optimization.id,
    models.Optimization.recommendation_id,
    models.Optimization.type,
    models.Optimization.status,
    models.Optimization.started_at,
    models.Optimization.completed_at,
    models.Optimization.result,
    json_list(_STEPS).label("steps"),
).where(models.Optimization.customer_id == bindparam("customer_id"))
_ONE = Query(_MINE.where(models.Optimization.id == bindparam("optimization_id")))
_NEWEST = Query(_MINE.order_by(models.Optimization.created_at.desc()).limit(bindparam("limit")))


async def listing(database: Database, customer_id: str, limit: int) -> list[Optimization]:
    """The customer's optimizations, newest first."""
    return [_to_wire(row) for row in await database.read(_NEWEST, customer_id=customer_id, limit=limit)]


async def get(database: Database, customer_id: str, optimization_id: str) -> Optimization:
    """One optimization; NotFound when the customer has none of that id."""
    found = await database.read(_ONE, customer_id=customer_id, optimization_id=optimization_id)
    if not found:
        raise NotFound("optimization")
    return _to_wire(found[0])


async def request_rollback(
    database: Database, customer_id: str, optimization_id: str, keyed: KeyedRequest | None = None
) -> Optimization:
    """Record the request of a rollback.

    Raises Conflict if there is nothing left to roll back, or while another optimization changes the same resources.
    """
    async with database.transaction() as session:
        await replay(session, keyed)
        row = await session.get(models.Optimization, optimization_id, with_for_update=True)
        if row is None or row.customer_id != customer_id:
            raise NotFound("optimization")
        if row.status in FINAL and row.status != OptimizationStatus.COMPLETED:
            raise Conflict("not_executable", f"the optimization is {row.status}: there is nothing to roll back")
        if row.status == OptimizationStatus.COMPLETED and row.rollback_reason is None:
            await require_no_other_change(session, await session.get_one(models.Recommendation, row.recommendation_id))
        row.rollback_reason = row.rollback_reason or ON_REQUEST
        await session.flush()
        shown = {"customer_id": customer_id, "optimization_id": optimization_id}
        requested = _to_wire((await session.execute(_ONE.statement, shown)).one())
        await remember(session, keyed, requested)
    return requested


def _to_wire(row: Row) -> Optimization:
    steps = [Step.model_validate(step) for step in row.steps]
    return Optimization(
        id=row.id,
        recommendation_id=row.recommendation_id,
        type=row.type,
        status=row.status,
        started_at=row.started_at,
        completed_at=row.completed_at,
        execution_steps=[step for step in steps if not is_rollback(step.name)],
        rollback_steps=[step for step in steps if is_rollback(step.name)],
        result=Result.model_validate(row.result) if row.result else None,
    )
