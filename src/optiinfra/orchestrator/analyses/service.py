"""Analyses: recorded on request, and shown to their customer."""

from sqlalchemy import bindparam, func, select

from optiinfra.api.recommendations import Analysis, AnalysisStarted
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.recommendation import AgentType
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.errors import NotFound, TooManyRequests
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.idempotency import KeyedRequest, remember, replay
from optiinfra.orchestrator.inventory.repository import lock_customer
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from optiinfra.stores.postgres.reads import Query, json_list

_RETRY_SECONDS = 5


async def create(
    platform: Platform, customer_id: str, agent_type: AgentType, keyed: KeyedRequest | None
) -> AnalysisStarted:
    """Record an analysis that an agent of that type is to make.

    Raises TooManyRequests while the customer has as many analyses in progress as allowed.
    """
    analysis_id, most = new_id("anal"), platform.settings.quota_analyses
    in_progress = models.Analysis.customer_id == customer_id, models.Analysis.status == AnalysisStatus.STARTED
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        await lock_customer(session, customer_id)  # so that concurrent requests count each other
        if (await session.scalar(select(func.count()).where(*in_progress)) or 0) >= most:
            raise TooManyRequests(_RETRY_SECONDS, f"at most {most} analyses of a customer may be in progress")
        session.add(
            models.Analysis(
                id=analysis_id, customer_id=customer_id, agent_type=agent_type, status=AnalysisStatus.STARTED
            )
        )
        await session.flush()
        payload = {"analysis_id": analysis_id}
        await record(session, customer_id, "analysis_started", "customer", payload, agent_type=agent_type)
        started = AnalysisStarted(analysis_id=analysis_id)
        await remember(session, keyed, started)
    return started


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
