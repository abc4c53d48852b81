"""Analyses: recorded on request, and shown to their customer."""

from sqlalchemy import select

from optiinfra.api.recommendations import Analysis
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.events.service import record
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database


async def create(database: Database, customer_id: str, agent_type: AgentType) -> str:
    """Record an analysis that an agent of that type is to make; its id."""
    analysis_id = new_id("anal")
    async with database.transaction() as session:
        session.add(
            models.Analysis(
                id=analysis_id, customer_id=customer_id, agent_type=agent_type, status=AnalysisStatus.STARTED
            )
        )
        await session.flush()
        payload = {"analysis_id": analysis_id}
        await record(session, customer_id, "analysis_started", "customer", payload, agent_type=agent_type)
    return analysis_id


async def get(database: Database, customer_id: str, analysis_id: str) -> Analysis:
    """One analysis with the ids of its recommendations; NotFound when the customer has none of that id."""
    table = models.Recommendation
    query = select(table.id).where(table.analysis_id == analysis_id).order_by(table.created_at, table.id)
    async with database.transaction() as session:
        row = await session.get(models.Analysis, analysis_id)
        if row is None or row.customer_id != customer_id:
            raise NotFound("analysis")
        return Analysis(
            id=row.id,
            agent_type=row.agent_type,
            status=row.status,
            recommendation_ids=list(await session.scalars(query)),
            summary=row.summary,
            error=row.error,
        )
