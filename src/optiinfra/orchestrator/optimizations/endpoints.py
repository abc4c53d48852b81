"""Routes of optimizations: list, read, roll back."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import OptimizationStatus
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import AnyUser, Approver, OwnCustomer
from optiinfra.orchestrator.idempotency import Keyed
from optiinfra.orchestrator.optimizations import service
from optiinfra.orchestrator.optimizations.workflow import CurrentWorkflows
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(route_class=LateBodyRoute)


@router.get("/customers/{customer_id}/optimizations")
async def optimizations(
    customer_id: OwnCustomer,
    platform: CurrentPlatform,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Optimization]:
    """The customer's optimizations, newest first."""
    return await service.listing(platform.database, customer_id, limit)


@router.get("/optimizations/{optimization_id}")
async def optimization(optimization_id: str, caller: AnyUser, platform: CurrentPlatform) -> Optimization:
    """The state of an optimization."""
    return await service.get(platform.database, caller.customer_id, optimization_id)


@router.post("/optimizations/{optimization_id}/rollback", status_code=202, responses=error_responses(409))
async def rollback(
    optimization_id: str, caller: Approver, platform: CurrentPlatform, workflows: CurrentWorkflows, keyed: Keyed
) -> Optimization:
    """Roll back: a running optimization before its next step, a completed one entirely."""
    shown = await service.request_rollback(platform.database, caller.customer_id, optimization_id, keyed)
    if shown.status == OptimizationStatus.COMPLETED:
        await workflows.start_rollback(optimization_id)
    return shown
