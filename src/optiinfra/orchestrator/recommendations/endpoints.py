"""Routes of recommendations: list, approve, reject."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.recommendations import Approved, Recommendation, Reject
from optiinfra.domain.recommendation import RecommendationStatus
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import Approver, OwnCustomer
from optiinfra.orchestrator.idempotency import Keyed
from optiinfra.orchestrator.optimizations.workflow import CurrentWorkflows
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.orchestrator.recommendations import service

router = APIRouter(route_class=LateBodyRoute)


@router.get("/customers/{customer_id}/recommendations")
async def recommendations(
    customer_id: OwnCustomer,
    platform: CurrentPlatform,
    status: RecommendationStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Recommendation]:
    """The customer's recommendations, newest first."""
    return await service.listing(platform, customer_id, status, limit)


@router.post("/recommendations/{recommendation_id}/approve", responses=error_responses(409))
async def approve(
    recommendation_id: str, caller: Approver, platform: CurrentPlatform, workflows: CurrentWorkflows, keyed: Keyed
) -> Approved:
    """Approve a recommendation and start its optimization."""
    optimization_id = await service.approve(platform, caller.customer_id, recommendation_id, caller.subject, keyed)
    await workflows.start(optimization_id)
    return Approved(optimization_id=optimization_id)


@router.post("/recommendations/{recommendation_id}/reject", responses=error_responses(409))
async def reject(
    recommendation_id: str, body: Reject, caller: Approver, platform: CurrentPlatform, keyed: Keyed
) -> Recommendation:
    """Reject a recommendation."""
    return await service.reject(platform, caller.customer_id, recommendation_id, body.reason, caller.subject, keyed)
