"""Routes of recommendations: list, approve, reject."""

from typing import Annotated

from fastapi import APIRouter, Query

from optiinfra.api.recommendations import Approved, Recommendation, Reject
from optiinfra.domain.recommendation import RecommendationStatus
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import APPROVERS, require_tenant, require_user
from optiinfra.orchestrator.optimizations.workflow import CurrentWorkflows
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.orchestrator.recommendations import service

router = APIRouter()


@router.get("/customers/{customer_id}/recommendations")
async def recommendations(
    customer_id: str,
    principal: CurrentPrincipal,
    platform: CurrentPlatform,
    status: RecommendationStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Recommendation]:
    """The customer's recommendations, newest first."""
    require_tenant(principal, customer_id)
    return await service.listing(platform, customer_id, status, limit)


@router.post("/recommendations/{recommendation_id}/approve", responses=error_responses(409))
async def approve(
    recommendation_id: str, principal: CurrentPrincipal, platform: CurrentPlatform, workflows: CurrentWorkflows
) -> Approved:
    """Approve a recommendation and start its optimization."""
    customer_id = require_user(principal, APPROVERS)
    optimization_id = await service.approve(platform, customer_id, recommendation_id, principal.subject)
    await workflows.start(optimization_id)
    return Approved(optimization_id=optimization_id)


@router.post("/recommendations/{recommendation_id}/reject", responses=error_responses(409))
async def reject(
    recommendation_id: str, body: Reject, principal: CurrentPrincipal, platform: CurrentPlatform
) -> Recommendation:
    """Reject a recommendation."""
    customer_id = require_user(principal, APPROVERS)
    return await service.reject(platform, customer_id, recommendation_id, body.reason, principal.subject)
