"""An optimization's rows: what began, what ended and how, each with its event in the same transaction."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.api.events import EventType
from optiinfra.api.recommendations import Result
from optiinfra.domain.optimization import FINAL, STEPS, OptimizationStatus, StepStatus
from optiinfra.domain.recommendation import RecommendationStatus
from optiinfra.orchestrator.events.service import record
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database

ON_REQUEST = "rolled back on request"
"""Why an optimization is undone that did not fail."""


async def begin_step(database: Database, optimization_id: str, name: str) -> models.OptimizationStep:
    """Note that a step begins, or begins again after a crash. One that is completed is returned as it is."""
    async with database.transaction() as session:
        optimization = await _lock(session, optimization_id)
        if optimization.status == OptimizationStatus.PENDING:
            optimization.status, optimization.started_at = OptimizationStatus.RUNNING, now()
            recommendation = await session.get_one(models.Recommendation, optimization.recommendation_id)
            recommendation.status = RecommendationStatus.EXECUTING
            await _record(session, optimization, "optimization_started", {}, status=OptimizationStatus.RUNNING)
        step = await session.get(models.OptimizationStep, (optimization_id, name))
        if step is None:
            begun = await session.scalars(
                select(models.OptimizationStep.name).where(models.OptimizationStep.optimization_id == optimization_id)
            )
            step = models.OptimizationStep(
                optimization_id=optimization_id,
                name=name,
                position=len(begun.all()),
                status=StepStatus.RUNNING,
                attempt=1,
                started_at=now(),
                detail={},
            )
            session.add(step)
            await _record(session, optimization, "step_started", {}, step=name, status=StepStatus.RUNNING)
        elif step.status == StepStatus.RUNNING:
            step.attempt += 1
    return step


async def end_step(
    database: Database, optimization_id: str, name: str, detail: dict[str, Any], error: str | None = None
) -> None:
    """Note that a step is done, or has failed."""
    async with database.transaction() as session:
        optimization = await _lock(session, optimization_id)
        step = await session.get_one(models.OptimizationStep, (optimization_id, name))
        if step.status != StepStatus.RUNNING:
            return
        step.status = StepStatus.FAILED if error else StepStatus.COMPLETED
        step.completed_at = now()
        step.detail = detail | ({"error": error} if error else {})
        event: EventType = "step_failed" if error else "step_completed"
        payload = {"error": error} if error else {}
        await _record(session, optimization, event, payload, step=name, status=step.status)


async def begin_rollback(database: Database, optimization_id: str, reason: str) -> None:
    """Note that what was done is being undone, and why."""
    async with database.transaction() as session:
        optimization = await _lock(session, optimization_id)
        optimization.status, optimization.rollback_reason = OptimizationStatus.ROLLING_BACK, reason


async def was_begun(database: Database, optimization_id: str, name: str) -> bool:
    """Whether a step ever began."""
    async with database.transaction() as session:
        return await session.get(models.OptimizationStep, (optimization_id, name)) is not None


async def complete(database: Database, optimization_id: str, result: Result) -> str | None:
    """Note that all steps are done; or return why not, when going back was asked for meanwhile."""
    async with database.transaction() as session:
        optimization = await _lock(session, optimization_id)
        if optimization.status == OptimizationStatus.RUNNING and optimization.rollback_reason is None:
            await _end(session, optimization, OptimizationStatus.COMPLETED, result)
        return optimization.rollback_reason if optimization.status == OptimizationStatus.RUNNING else None


async def finish(database: Database, optimization_id: str, status: OptimizationStatus, result: Result) -> None:
    """Note how going back ended."""
    async with database.transaction() as session:
        optimization = await _lock(session, optimization_id)
        if optimization.status not in FINAL:
            await _end(session, optimization, status, result)


async def _end(
    session: AsyncSession, optimization: models.Optimization, status: OptimizationStatus, result: Result
) -> None:
    optimization.status, optimization.completed_at = status, now()
    optimization.result = result.model_dump(mode="json")
    recommendation = await session.get_one(models.Recommendation, optimization.recommendation_id)
    recommendation.status = RecommendationStatus(status)
    event: EventType = (
        "optimization_completed" if status == OptimizationStatus.COMPLETED else "optimization_rolled_back"
    )
    await _record(session, optimization, event, optimization.result, status=status)


async def _lock(session: AsyncSession, optimization_id: str) -> models.Optimization:
    return await session.get_one(models.Optimization, optimization_id, with_for_update=True)


async def _record(
    session: AsyncSession,
    optimization: models.Optimization,
    event: EventType,
    payload: dict[str, Any],
    *,
    step: str | None = None,
    status: str,
) -> None:
    await session.flush()
    table = models.OptimizationStep
    done = await session.scalars(
        select(table.name).where(table.optimization_id == optimization.id, table.status == StepStatus.COMPLETED)
    )
    plan = STEPS[optimization.type]  # type: ignore[index]  # written from the same literals
    await record(
        session,
        optimization.customer_id,
        event,
        "orchestrator",
        payload,
        optimization_id=optimization.id,
        step=step,
        status=status,
        progress=len(set(done) & set(plan)) / len(plan),
    )
