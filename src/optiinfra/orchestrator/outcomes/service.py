"""What optimizations brought: measured, stored, and remembered for the next prediction."""

from sqlalchemy.dialects.postgresql import insert

from optiinfra.api.agents import Draft
from optiinfra.api.recommendations import Result
from optiinfra.domain.savings import reduction_percent, total
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.optimizations.run import Run, deployment_in
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.telemetry.service import store_figure
from optiinfra.stores.postgres import models


async def measure(run: Run, verdicts: dict[str, dict[str, float]]) -> Result:
    """The result: costs from the cloud's inventory as it is now, latency and quality as judged under all traffic."""
    counters = await run.measure()
    estate = await inventory.refresh(run.platform, run.customer_id)
    deployment = deployment_in(estate, run.draft)
    cost_after = total(instance.monthly_cost for instance in estate.instances_of(deployment))
    latency, quality = verdicts["performance"], verdicts["application"]
    await store_figure(run.platform, run.customer_id, deployment.deployment_id, "quality_score", quality["estimate"])
    return Result(
        success=True,
        predicted_savings=run.draft.estimated_savings,
        actual_savings=round(run.snapshot.cost - cost_after, 2),
        cost_before=run.snapshot.cost,
        cost_after=cost_after,
        reduction_percent=round(reduction_percent(run.snapshot.cost, cost_after), 2),
        p95_before=run.snapshot.p95_latency_ms,
        p95_after=latency["estimate"],
        quality_before=run.baseline_quality,
        quality_after=quality["estimate"],
        quality_lower_bound=quality["lower_bound"],
        requests_dropped=counters.requests_dropped - run.snapshot.requests_dropped,
    )


async def remember(platform: Platform, optimization: models.Optimization, draft: Draft, result: Result) -> None:
    """Keep the outcome in PostgreSQL and, to be found by similarity, in Qdrant. Harmless to repeat."""
    measured = {"savings": result.actual_savings, "p95_latency_ms": result.p95_after}
    known = {figure: value for figure, value in measured.items() if value is not None}
    if not known:
        return
    statement = insert(models.Outcome).values(
        optimization_id=optimization.id,
        customer_id=optimization.customer_id,
        type=draft.type,
        features=draft.features,
        modelled=draft.modelled,
        measured=known,
    )
    # PostgreSQL first: of a customer that is deleted meanwhile nothing may remain in Qdrant.
    async with platform.database.transaction() as session:
        stored = await session.execute(statement.on_conflict_do_nothing().returning(models.Outcome.optimization_id))
        if stored.scalar() is not None:
            payload = {"modelled": draft.modelled, "measured": known}
            await record(
                session,
                optimization.customer_id,
                "outcome_stored",
                "orchestrator",
                payload,
                optimization_id=optimization.id,
            )
    await platform.memory.store(
        optimization.customer_id, optimization.id, draft.type, draft.features, draft.modelled, known
    )
