"""Analyses: recorded on request, and shown to their customer."""

from sqlalchemy import bindparam, select

from optiinfra.api.recommendations import Analysis
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.errors import NotFound
from optiinfra.orchestrator.events.service import record
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.postgres.reads import Query, json_list


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
    found = await database.read(_ANALYSIS, customer_id=customer_id, analysis_id=analysis_id)
    if not found:
        raise NotFound("analysis")
    (row,) = found
    return Analysis(
        id=row.id,
        agent_type=row.agent_type,
        status=row.status,
        recommendation_ids=[recommendation["id"] for recommendation in row.recommendations],
        summary=row.summary,
        error=row.error,
    )


def _analysis() -> Query:
    table, recommendation = models.Analysis, models.Recommendation
    ids = select(recommendation.id).where(recommendation.analysis_id == bindparam("analysis_id"))
    columns = table.id, table.agent_type, table.status, table.summary, table.error
    recommendations = json_list(ids.order_by(recommendation.created_at, recommendation.id)).label("recommendations")
    mine = table.id == bindparam("analysis_id"), table.customer_id == bindparam("customer_id")
    return Query(select(*columns, recommendations).where(*mine))


_ANALYSIS = _analysis()
