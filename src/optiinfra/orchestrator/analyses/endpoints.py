"""Routes of analyses: start one, read its state."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from optiinfra.api.recommendations import Analysis, AnalysisStarted, Analyze
from optiinfra.kit.late_bodies import LateBodyRoute
from optiinfra.kit.openapi import error_responses
from optiinfra.orchestrator.access import AnyUser, ApproversCustomer
from optiinfra.orchestrator.analyses import service
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.idempotency import Keyed
from optiinfra.orchestrator.platform import CurrentPlatform

router = APIRouter(route_class=LateBodyRoute)


async def _workflow(request: Request) -> AnalysisWorkflow:
    workflow: AnalysisWorkflow = request.app.state.analyses
    return workflow


@router.post("/customers/{customer_id}/analyze", status_code=202, responses=error_responses(429))
async def analyze(
    customer_id: ApproversCustomer,
    body: Analyze,
    platform: CurrentPlatform,
    workflow: Annotated[AnalysisWorkflow, Depends(_workflow)],
    keyed: Keyed,
) -> AnalysisStarted:
    """Start an analysis by an agent of that type; its recommendations appear when it has ended."""
    started = await service.create(platform, customer_id, body.agent_type, keyed)
    await workflow.start(started.analysis_id)
    return started


@router.get("/analyses/{analysis_id}")
async def analysis(analysis_id: str, caller: AnyUser, platform: CurrentPlatform) -> Analysis:
    """The state of an analysis."""
    return await service.get(platform.database, caller.customer_id, analysis_id)
