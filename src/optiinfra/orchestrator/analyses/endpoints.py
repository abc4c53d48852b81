"""Having an agent look at the estate."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy import select

from optiinfra.api.recommendations import Analysis, AnalysisStarted, Analyze
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.kit.auth import CurrentPrincipal
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.access import APPROVERS, require_tenant, require_user
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.platform import CurrentPlatform
from optiinfra.stores.postgres import models

router = APIRouter()


def _workflow(request: Request) -> AnalysisWorkflow:
    workflow: AnalysisWorkflow = request.app.state.analyses
    return workflow


@router.post("/customers/{customer_id}/analyze", status_code=202)
async def analyze(
    customer_id: str,
    body: Analyze,
    principal: CurrentPrincipal,
    platform: CurrentPlatform,
    workflow: Annotated[AnalysisWorkflow, Depends(_workflow)],
) -> AnalysisStarted:
    """Have an agent of that type look; its recommendations come when it is done."""
    require_tenant(principal, customer_id, APPROVERS)
    analysis_id = new_id("anal")
    async with platform.database.transaction() as session:
        session.add(
            models.Analysis(
                id=analysis_id, customer_id=customer_id, agent_type=body.agent_type, status=AnalysisStatus.STARTED
            )
        )
        await session.flush()
        payload = {"analysis_id": analysis_id}
        await record(session, customer_id, "analysis_started", "customer", payload, agent_type=body.agent_type)
    await workflow.start(analysis_id)
    return AnalysisStarted(analysis_id=analysis_id)


@router.get("/analyses/{analysis_id}")
async def analysis(analysis_id: str, principal: CurrentPrincipal, platform: CurrentPlatform) -> Analysis:
    """How an analysis stands."""
    customer_id = require_user(principal)
    async with platform.database.transaction() as session:
        row = await session.get(models.Analysis, analysis_id)
        if row is None or row.customer_id != customer_id:
            raise NotFound("analysis")
        table = models.Recommendation
        found = await session.scalars(
            select(table.id).where(table.analysis_id == analysis_id).order_by(table.created_at, table.id)
        )
        return Analysis(
            id=row.id,
            agent_type=row.agent_type,
            status=row.status,
            recommendation_ids=list(found),
            summary=row.summary,
            error=row.error,
        )
