"""Work that was promised and never begun is begun: after a crash, or where a store was away at the wrong moment."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

import structlog
from sqlalchemy import select

from optiinfra.api.common import now
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.inventory import CloudAccountStatus
from optiinfra.domain.optimization import OptimizationStatus
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.background import is_under_way, start_in_background
from optiinfra.orchestrator.customers.service import removal_of, remove_rest
from optiinfra.orchestrator.inventory.service import discover, discovery_of
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
            log.exception("what was left could not be looked for")
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
                select(analysis.id).where(analysis.status == AnalysisStatus.STARTED, analysis.created_at <= before)
            )
        )
        approved = list(
            await session.scalars(
                select(optimization.id).where(
                    optimization.status == OptimizationStatus.PENDING, optimization.created_at <= before
                )
            )
        )
        unwanted = list(
            await session.scalars(
                select(optimization.id).where(
                    optimization.status == OptimizationStatus.COMPLETED, optimization.rollback_reason.is_not(None)
                )
            )
        )
        unseen = set(
            await session.scalars(select(account.customer_id).where(account.status == CloudAccountStatus.DISCOVERING))
        )
        leaving = set(await session.scalars(select(models.Leaving.customer_id)))
    await _begin(analyses.start, begun)
    await _begin(runs.start, approved)
    await _begin(runs.start_rollback, unwanted)
    # Not waited for: a cloud or store that does not answer must not keep back what the next look finds.
    for customer_id in sorted(unseen):
        if not is_under_way(discovery_of(customer_id)):
            start_in_background(discover(platform, customer_id))
    for customer_id in sorted(leaving):
        if not is_under_way(removal_of(customer_id)):
            start_in_background(remove_rest(platform, customer_id))


async def _begin(begin: Callable[[str], Awaitable[None]], left: Iterable[str]) -> None:
    """Begin each; one that cannot be begun keeps nobody else back, and is found again by the next look."""
    for one in left:
        try:
            await begin(one)
        except StoreUnavailable as error:
            log.warning("what was left could not be begun", left=one, error=str(error))
        except Exception:
            log.exception("what was left could not be begun", left=one)
