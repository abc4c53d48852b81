"""Work that was promised and never begun is begun: after a crash, or where a store was away at the wrong moment."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy import select

from optiinfra.api.common import now
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.inventory.service import discover
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)


async def sweep_for_ever(platform: Platform, analyses: AnalysisWorkflow, runs: OptimizationWorkflow) -> None:
    """Look once at everything that is left, then now and again at what has been left for a while."""
    left_for = timedelta()
    while True:
        try:
            await _sweep(platform, analyses, runs, left_for)
            left_for = timedelta(seconds=platform.settings.sweep_seconds)
        except StoreUnavailable as error:
            log.warning("what was left could not be looked for", error=str(error))
        except Exception:
            log.exception("what was left could not be begun")
        await asyncio.sleep(platform.settings.sweep_seconds)


async def _sweep(
    platform: Platform, analyses: AnalysisWorkflow, runs: OptimizationWorkflow, left_for: timedelta
) -> None:
    """Begin what a row promises, unless it is younger than that: whoever wrote it is about to begin it.

    Beginning a workflow that is begun already does nothing.
    """
    analysis, optimization, account = models.Analysis, models.Optimization, models.CloudAccount
    before = now() - left_for
    async with platform.database.transaction() as session:
        begun = list(
            await session.scalars(
                select(analysis.id).where(analysis.status == "started", analysis.created_at <= before)
            )
        )
        approved = list(
            await session.scalars(
                select(optimization.id).where(optimization.status == "pending", optimization.created_at <= before)
            )
        )
        unwanted = list(
            await session.scalars(
                select(optimization.id).where(
                    optimization.status == "completed", optimization.rollback_reason.is_not(None)
                )
            )
        )
        unseen = set(await session.scalars(select(account.customer_id).where(account.status == "discovering")))
    for analysis_id in begun:
        await analyses.start(analysis_id)
    for optimization_id in approved:
        await runs.start(optimization_id)
    for optimization_id in unwanted:
        await runs.start_rollback(optimization_id)
    await asyncio.gather(*(discover(platform, customer_id) for customer_id in sorted(unseen)))
