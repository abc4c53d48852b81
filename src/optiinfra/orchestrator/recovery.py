"""Starts work recorded in PostgreSQL that no process executes, after a crash, an outage, or when it is due.

That is: analyses and optimizations without a workflow, rollbacks that were requested,
accounts to discover or to list again, customers to delete.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import or_, select

from optiinfra.api.common import now
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.inventory import CloudAccountStatus
from optiinfra.domain.optimization import OptimizationStatus
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.background import is_in_progress, start_in_background
from optiinfra.orchestrator.customers.deletion import deletion_of, finish_deletion
from optiinfra.orchestrator.idempotency import forget_old_keys
from optiinfra.orchestrator.inventory.service import discover, discovery_of
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.telemetry.service import forget_old_batches
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """Ids of what is unfinished."""

    analyses: list[str]
    optimizations: list[str]
    rollbacks: list[str]
    discoveries: set[str]
    """Customers with an account that is to be discovered, or whose listing is old."""
    deletions: set[str]
    """Customers whose deletion has not ended."""


async def recover_periodically(
    platform: Platform, analyses: AnalysisWorkflow, optimizations: OptimizationWorkflow
) -> None:
    """Recover everything at once after the start, later only what has been unfinished for a while."""
    minimum_age = timedelta()
    while True:
        try:
            await recover(platform, analyses, optimizations, minimum_age)
            await forget_old_keys(platform.database)
            await forget_old_batches(platform.database)
            minimum_age = timedelta(seconds=platform.settings.recovery_seconds)
        except StoreUnavailable as error:
            log.warning("recovery postponed", error=str(error))
        except Exception:
            log.exception("recovery failed")
        await asyncio.sleep(platform.settings.recovery_seconds)


async def recover(
    platform: Platform, analyses: AnalysisWorkflow, optimizations: OptimizationWorkflow, minimum_age: timedelta
) -> None:
    """Start what is unfinished and older than `minimum_age`: younger work is about to be started by its own request.

    Starting a workflow a second time does nothing.
    """
    found = await _find_unfinished(platform, now() - minimum_age)
    await _start_each(analyses.start, "analysis", found.analyses)
    await _start_each(optimizations.start, "optimization", found.optimizations)
    await _start_each(optimizations.start_rollback, "rollback", found.rollbacks)
    # Not awaited: a cloud or store that does not answer must not delay the next recovery.
    for customer_id in sorted(found.discoveries):
        if not is_in_progress(discovery_of(customer_id)):
            start_in_background(discover(platform, customer_id))
    for customer_id in sorted(found.deletions):
        if not is_in_progress(deletion_of(customer_id)):
            start_in_background(finish_deletion(platform, customer_id))


async def _find_unfinished(platform: Platform, before: datetime) -> _Unfinished:
    analysis, optimization, account = models.Analysis, models.Optimization, models.CloudAccount
    started = analysis.status == AnalysisStatus.STARTED, analysis.created_at <= before
    pending = optimization.status == OptimizationStatus.PENDING, optimization.created_at <= before
    to_roll_back = optimization.status == OptimizationStatus.COMPLETED, optimization.rollback_reason.is_not(None)
    old = account.as_of <= now() - timedelta(seconds=platform.settings.inventory_seconds)
    to_discover = or_(account.status == CloudAccountStatus.DISCOVERING, old)
    async with platform.database.transaction() as session:
        return _Unfinished(
            analyses=list(await session.scalars(select(analysis.id).where(*started))),
            optimizations=list(await session.scalars(select(optimization.id).where(*pending))),
            rollbacks=list(await session.scalars(select(optimization.id).where(*to_roll_back))),
            discoveries=set(await session.scalars(select(account.customer_id).where(to_discover))),
            deletions=set(await session.scalars(select(models.CustomerDeletion.customer_id))),
        )


async def _start_each(start: Callable[[str], Awaitable[None]], kind: str, ids: Iterable[str]) -> None:
    """Start each; one that fails does not keep the others from being started, and the next recovery finds it again."""
    for item_id in ids:
        try:
            await start(item_id)
        except StoreUnavailable as error:
            log.warning("item recovery postponed", kind=kind, id=item_id, error=str(error))
        except Exception:
            log.exception("item recovery failed", kind=kind, id=item_id)
