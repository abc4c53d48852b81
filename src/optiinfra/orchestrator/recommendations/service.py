"""Recommendations: stored from drafts, judged by other agents, approved or rejected by the customer."""

from datetime import timedelta

from sqlalchemy import String, and_, bindparam, case, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.agents import Draft, Validation
from optiinfra.api.common import now
from optiinfra.api.customers import Preferences
from optiinfra.api.recommendations import Approved, Recommendation
from optiinfra.domain.optimization import OptimizationStatus
from optiinfra.domain.recommendation import ADVICE_ONLY, RecommendationStatus, pending_validators
from optiinfra.kit.ids import new_id
from optiinfra.kit.logging import trace_id
from optiinfra.orchestrator.errors import Conflict, NotFound
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.idempotency import KeyedRequest, remember, replay
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.optimizations.conflicts import affects_any, affects_only, require_no_other_change
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.reads import Query, Row


def _newest() -> Query:
    table, status = models.Recommendation, bindparam("status", type_=String)
    expired = and_(table.status == RecommendationStatus.PENDING, table.expires_at <= bindparam("moment"))
    shown_status = case((expired, RecommendationStatus.EXPIRED), else_=table.status)
    return Query(
        select(table.id, table.agent_type, table.status, table.draft, table.validations)
        .add_columns(table.created_at, table.expires_at)
        .where(table.customer_id == bindparam("customer_id"), or_(status.is_(None), shown_status == status))
        .order_by(table.created_at.desc(), table.id)
        .limit(bindparam("limit"))
    )


_NEWEST = _newest()


async def store(
    session: AsyncSession,
    platform: Platform,
    customer_id: str,
    analysis_id: str,
    agent_type: str,
    drafts: dict[str, Draft],
) -> None:
    """Store drafts under their ids; a pending recommendation of the same change is superseded.

    That is one of the same type for the same deployment, or, without a deployment, for any of the same resources.
    So is one about a deployment or an instance that no longer exists. Storing the same ids again changes nothing.
    """
    table = models.Recommendation
    await _supersede_gone(session, customer_id)
    known = set(await session.scalars(select(table.id).where(table.analysis_id == analysis_id)))
    for recommendation_id, draft in drafts.items():
        if recommendation_id in known:
            continue
        same_change = table.deployment_id == draft.deployment_id
        if draft.deployment_id is None:
            same_change = and_(table.deployment_id.is_(None), affects_any(draft.affected_resources))
        older = (
            table.customer_id == customer_id,
            table.draft["type"].astext == draft.type,
            table.status == RecommendationStatus.PENDING,
            same_change,
        )
        await session.execute(update(table).where(*older).values(status=RecommendationStatus.SUPERSEDED))
        session.add(
            table(
                id=recommendation_id,
                customer_id=customer_id,
                analysis_id=analysis_id,
                deployment_id=draft.deployment_id,
                agent_type=agent_type,
                status=RecommendationStatus.PENDING,
                draft=draft.model_dump(mode="json"),
                validations=[],
                expires_at=now() + timedelta(seconds=platform.settings.recommendation_ttl_seconds),
            )
        )
    await session.flush()
    # Only now: an event locks the customer's row, and recommendations are locked before it everywhere.
    for recommendation_id, draft in drafts.items():
        if recommendation_id not in known:
            payload = {
                "recommendation_id": recommendation_id,
                "title": draft.title,
                "estimated_savings": draft.estimated_savings,
            }
            await record(session, customer_id, "recommendation_created", "agent", payload, agent_type=agent_type)


async def _supersede_gone(session: AsyncSession, customer_id: str) -> None:
    """Supersede pending recommendations that affect something which the inventory does not list any more."""
    estate = await inventory.describe_in(session, customer_id)
    existing = [
        *(deployment.deployment_id for deployment in estate.vllm_deployments),
        *(instance.instance_id for instance in estate.instances if instance.state != "terminated"),
    ]
    table = models.Recommendation
    gone = (
        table.customer_id == customer_id,
        table.status == RecommendationStatus.PENDING,
        not_(affects_only(existing)),
    )
    await session.execute(update(table).where(*gone).values(status=RecommendationStatus.SUPERSEDED))


async def add_validation(session: AsyncSession, recommendation_id: str, validation: Validation) -> None:
    """Add an agent's judgement; a refusal rejects the recommendation. A second one by the same agent is ignored."""
    row = await session.get_one(models.Recommendation, recommendation_id, with_for_update=True)
    if any(given["agent_type"] == validation.agent_type for given in row.validations):
        return
    row.validations = [*row.validations, validation.model_dump(mode="json")]
    if not validation.approved and row.status == RecommendationStatus.PENDING:
        row.status = RecommendationStatus.REJECTED
    payload = {"recommendation_id": row.id, "approved": validation.approved, "reason": validation.reason}
    await record(
        session, row.customer_id, "recommendation_validated", "agent", payload, agent_type=validation.agent_type
    )


async def listing(
    platform: Platform, customer_id: str, status: RecommendationStatus | None, limit: int
) -> list[Recommendation]:
    """The customer's recommendations, newest first."""
    rows = await platform.database.read(_NEWEST, customer_id=customer_id, status=status, moment=now(), limit=limit)
    return [to_wire(row) for row in rows]


async def approve(
    platform: Platform, customer_id: str, recommendation_id: str, approver: str, keyed: KeyedRequest | None = None
) -> str:
    """Approve and return the id of its optimization; repeated approvals return the same id.

    Raises NotFound for another customer's recommendation, Conflict if it is no longer or was never executable.
    """
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        row = await _lock(session, customer_id, recommendation_id)
        query = select(models.Optimization.id).where(models.Optimization.recommendation_id == recommendation_id)
        if (existing := await session.scalar(query)) is not None:
            await remember(session, keyed, Approved(optimization_id=existing))
            return existing
        draft = Draft.model_validate(row.draft)
        require_approvable(to_wire(row))
        await require_no_other_change(session, row)
        optimization = models.Optimization(
            id=new_id("opt"),
            customer_id=customer_id,
            recommendation_id=recommendation_id,
            type=draft.type,
            status=OptimizationStatus.PENDING,
            trace_id=trace_id(),
        )
        session.add(optimization)
        row.status = RecommendationStatus.APPROVED
        payload = {"recommendation_id": recommendation_id, "approved_by": approver}
        await record(
            session,
            customer_id,
            "recommendation_approved",
            "customer",
            payload,
            optimization_id=optimization.id,
        )
        await remember(session, keyed, Approved(optimization_id=optimization.id))
    return optimization.id


async def reject(
    platform: Platform, customer_id: str, recommendation_id: str, reason: str, by: str, keyed: KeyedRequest | None
) -> Recommendation:
    """Reject a pending recommendation."""
    async with platform.database.transaction() as session:
        await replay(session, keyed)
        row = await _lock(session, customer_id, recommendation_id)
        if (shown := to_wire(row)).status != RecommendationStatus.PENDING:
            raise _not_pending(shown)
        row.status = RecommendationStatus.REJECTED
        payload = {"recommendation_id": recommendation_id, "reason": reason, "rejected_by": by}
        await record(session, customer_id, "recommendation_rejected", "customer", payload)
        rejected = to_wire(row)
        await remember(session, keyed, rejected)
    return rejected


def to_wire(row: models.Recommendation | Row) -> Recommendation:
    """As the API shows it; a pending one past its time is expired."""
    expired = row.status == RecommendationStatus.PENDING and row.expires_at <= now()
    shown = {
        "id": row.id,
        "agent_type": row.agent_type,
        "status": RecommendationStatus.EXPIRED if expired else row.status,
        "validations": row.validations,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }
    return Recommendation.model_validate(row.draft | shown)  # the API shows all but some fields of the draft


def require_approvable(recommendation: Recommendation) -> None:
    """Raise Conflict unless every validator approved, the platform can execute it, and it is pending."""
    for validation in recommendation.validations:
        if not validation.approved:
            refusal = f"the {validation.agent_type} agent refused it: {validation.reason}"
            raise Conflict("refused_by_validator", refusal)
    answered = {validation.agent_type for validation in recommendation.validations}
    if missing := pending_validators(recommendation.agent_type, answered):
        raise Conflict("not_validated", f"not yet validated by: {', '.join(missing)}")
    if recommendation.type in ADVICE_ONLY:
        raise Conflict("not_executable", "this is advice for you to follow; the platform cannot carry it out")
    if recommendation.status != RecommendationStatus.PENDING:
        raise _not_pending(recommendation)


def approves_automatically(preferences: Preferences, recommendation: Recommendation) -> bool:
    """Whether the customer's preferences approve it without asking; also true for one that they just approved.

    A change that raises the cost has no savings to compare, and is never approved automatically.
    """
    return (
        not preferences.paused
        and recommendation.status in (RecommendationStatus.PENDING, RecommendationStatus.APPROVED)
        and recommendation.risk_level == "low"
        and 0 <= recommendation.estimated_savings < preferences.auto_approve_below
    )


def _not_pending(recommendation: Recommendation) -> Conflict:
    state = f"{recommendation.id} is {recommendation.status}, not pending: have a new analysis made for a new one"
    return Conflict("not_pending", state)


async def _lock(session: AsyncSession, customer_id: str, recommendation_id: str) -> models.Recommendation:
    row = await session.get(models.Recommendation, recommendation_id, with_for_update=True)
    if row is None or row.customer_id != customer_id:
        raise NotFound("recommendation")
    return row
