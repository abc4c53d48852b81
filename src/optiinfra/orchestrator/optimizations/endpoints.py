"""Optimizations: how they go, and going back."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.recommendations import Optimization, Result, Step
from optiinfra.domain.optimization import FINAL, OptimizationStatus
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.kit.openapi import error_responses
from optiinfra.kit.problems import Problem, not_found
from optiinfra.orchestrator.access import APPROVERS, require_tenant, require_user
from optiinfra.orchestrator.optimizations.journal import ON_REQUEST
from optiinfra.orchestrator.optimizations.workflow import CurrentWorkflows
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.stores.postgres import models

router = APIRouter()


@router.get("/customers/{customer_id}/optimizations")
async def optimizations(
    customer_id: str,
    principal: CurrentPrincipal,
    platform: CurrentPlatform,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Optimization]:
    """The customer's optimizations, newest first."""
    require_tenant(principal, customer_id)
    table = models.Optimization
    mine = select(table).where(table.customer_id == customer_id).order_by(table.created_at.desc()).limit(limit)
    async with platform.database.transaction() as session:
        return [await _to_wire(session, row) for row in await session.scalars(mine)]


@router.get("/optimizations/{optimization_id}")
async def optimization(optimization_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> Optimization:
    """How an optimization stands."""
    customer_id = require_user(principal)
    async with platform.database.transaction() as session:
        return await _to_wire(session, await _get(session, customer_id, optimization_id))


@router.post("/optimizations/{optimization_id}/rollback", status_code=202, responses=error_responses(409))
async def rollback(
    optimization_id: str, principal: CurrentPrincipal, platform: CurrentPlatform, workflows: CurrentWorkflows
) -> Optimization:
    """Go back to how it was: stop before the next step, or undo what is completed."""
    customer_id = require_user(principal, APPROVERS)
    async with platform.database.transaction() as session:
        row = await _get(session, customer_id, optimization_id, lock=True)
        if row.status in FINAL and row.status != OptimizationStatus.COMPLETED:
            raise Problem(409, "not_executable", f"the optimization is {row.status}: there is nothing to go back from")
        row.rollback_reason = row.rollback_reason or ON_REQUEST
        completed = row.status == OptimizationStatus.COMPLETED
        shown = await _to_wire(session, row)
    if completed:
        await workflows.start_rollback(optimization_id)
    return shown


async def _get(
    session: AsyncSession, customer_id: str, optimization_id: str, *, lock: bool = False
) -> models.Optimization:
    row = await session.get(models.Optimization, optimization_id, with_for_update=lock)
    if row is None or row.customer_id != customer_id:
        raise not_found("optimization")
    return row


async def _to_wire(session: AsyncSession, row: models.Optimization) -> Optimization:
    table = models.OptimizationStep
    query = select(table).where(table.optimization_id == row.id).order_by(table.position)
    steps = [Step.model_validate(step, from_attributes=True) for step in await session.scalars(query)]
    return Optimization(
        id=row.id,
        recommendation_id=row.recommendation_id,
        type=row.type,
        status=row.status,
        started_at=row.started_at,
        completed_at=row.completed_at,
        execution_steps=[step for step in steps if not step.name.startswith("undo_")],
        rollback_steps=[step for step in steps if step.name.startswith("undo_")],
        result=Result.model_validate(row.result) if row.result else None,
    )
