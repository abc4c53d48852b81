"""Optimizations that would change the same resources at once: refused."""

from sqlalchemy import ColumnElement, Text, and_, cast, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.domain.optimization import FINAL, OptimizationStatus
from optiinfra.orchestrator.errors import Conflict
from optiinfra.stores.postgres import models


def unfinished() -> ColumnElement[bool]:
    """SQL condition: the optimization has not ended, or its rollback is requested and may not have started."""
    table = models.Optimization
    rollback_requested = and_(table.status == OptimizationStatus.COMPLETED, table.rollback_reason.is_not(None))
    return or_(table.status.not_in(FINAL), rollback_requested)


def affects_any(resources: list[str]) -> ColumnElement[bool]:
    """SQL condition: the recommendation affects one of these resources."""
    affected: ColumnElement[bool] = models.Recommendation.draft["affected_resources"].has_any(
        cast(resources, ARRAY(Text))
    )
    return affected


def affects_only(resources: list[str]) -> ColumnElement[bool]:
    """SQL condition: every resource that the recommendation affects is one of these."""
    affected: ColumnElement[bool] = models.Recommendation.draft["affected_resources"].contained_by(resources)
    return affected


async def require_no_other_change(session: AsyncSession, recommendation: models.Recommendation) -> None:
    """Raise Conflict while another optimization changes the same deployment or any of the same resources."""
    # The lock makes concurrent requests of one customer wait for each other.
    await session.get_one(models.Customer, recommendation.customer_id, with_for_update={"key_share": True})
    table = models.Recommendation
    same_resources = [affects_any(recommendation.draft["affected_resources"])]
    if recommendation.deployment_id is not None:
        same_resources.append(table.deployment_id == recommendation.deployment_id)
    others = (
        select(models.Optimization.id)
        .join(table, table.id == models.Optimization.recommendation_id)
        .where(table.customer_id == recommendation.customer_id, table.id != recommendation.id)
        .where(unfinished(), or_(*same_resources))
    )
    if (other := await session.scalar(others.limit(1))) is not None:
        subject = "these resources" if recommendation.deployment_id is None else "this deployment"
        raise Conflict("deployment_busy", f"optimization {other} is still changing {subject}")
