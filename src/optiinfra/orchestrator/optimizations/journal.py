"""The record of an optimization: which steps began and how they ended, each with its event in the same transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.api.events import EventType
from optiinfra.api.recommendations import Result
from optiinfra.domain.optimization import FINAL, OptimizationStatus, StepStatus, rollback_step
from optiinfra.domain.recommendation import RecommendationStatus
from optiinfra.orchestrator.events.service import record
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database

ON_REQUEST = "rolled back on request"
"""Why an optimization is rolled back that did not fail."""


@dataclass(frozen=True, slots=True)
class Record:
    """An optimization with the recommendation that it executes and its steps so far, by name as shown."""

    optimization: models.Optimization
    recommendation: models.Recommendation
    steps: Mapping[str, models.OptimizationStep]

    def error_of(self, name: str) -> str | None:
        """Why a step failed; None for one that did not."""
        return self.steps[name].detail.get("error")


class Journal:
    """Keeps records. `plans` has the names of each optimization type's steps, for the progress that events show."""

    def __init__(self, database: Database, plans: Mapping[str, Sequence[str]]) -> None:
        self._database, self._plans = database, plans

    async def read(self, optimization_id: str) -> Record:
        """The current record; NoResultFound when the optimization was deleted with its customer."""
        async with self._database.transaction() as session:
            return await _read(session, optimization_id)

    async def begin_step(self, optimization_id: str, name: str) -> Record:
        """Record that a step begins, or begins again after a crash; no-op if already ended.

        Nothing begins once a rollback was requested: the record then has no such step, or one from before a crash.
        """
        async with self._database.transaction() as session:
            found = await _read(session, optimization_id, lock=True)
            optimization = found.optimization
            if optimization.rollback_reason is not None:
                return found
            if optimization.status == OptimizationStatus.PENDING:
                optimization.status, optimization.started_at = OptimizationStatus.RUNNING, now()
                found.recommendation.status = RecommendationStatus.EXECUTING
                await self._record(session, found, "optimization_started", {}, status=OptimizationStatus.RUNNING)
            return await self._begin(session, found, name)

    async def begin_rollback_step(self, optimization_id: str, name: str) -> Record:
        """Record that the rollback of a step begins, or begins again; no-op if the step itself never began.

        The record's step is named `undo_<name>`.
        """
        async with self._database.transaction() as session:
            found = await _read(session, optimization_id, lock=True)
            if found.optimization.snapshot is None or name not in found.steps:
                return found
            return await self._begin(session, found, rollback_step(name))

    async def end_step(self, optimization_id: str, name: str, detail: dict[str, Any], error: str | None = None) -> None:
        """Record that a step is completed or has failed; no-op if already ended."""
        async with self._database.transaction() as session:
            found = await _read(session, optimization_id, lock=True)
            step = found.steps[name]
            if step.status != StepStatus.RUNNING:
                return
            step.status = StepStatus.FAILED if error else StepStatus.COMPLETED
            step.completed_at = now()
            step.detail = detail | ({"error": error} if error else {})
            event: EventType = "step_failed" if error else "step_completed"
            payload = {"error": error} if error else {}
            await self._record(session, found, event, payload, step=name, status=step.status)

    async def store_snapshot(self, optimization_id: str, snapshot: dict[str, Any]) -> None:
        """Store the snapshot."""
        async with self._database.transaction() as session:
            (await _lock(session, optimization_id)).snapshot = snapshot

    async def begin_rollback(self, optimization_id: str, reason: str) -> None:
        """Record that a rollback is in progress, and why."""
        async with self._database.transaction() as session:
            optimization = await _lock(session, optimization_id)
            optimization.status, optimization.rollback_reason = OptimizationStatus.ROLLING_BACK, reason

    async def complete(self, optimization_id: str, result: Result) -> str | None:
        """Record that all steps are completed, unless a rollback was requested; returns the reason of the rollback."""
        async with self._database.transaction() as session:
            found = await _read(session, optimization_id, lock=True)
            optimization = found.optimization
            running = optimization.status == OptimizationStatus.RUNNING
            if running and optimization.rollback_reason is None:
                await self._end(session, found, OptimizationStatus.COMPLETED, result)
            return optimization.rollback_reason if running else None

    async def finish_rollback(self, optimization_id: str, status: OptimizationStatus, result: Result) -> None:
        """Record how a rollback ended; no-op if already ended."""
        async with self._database.transaction() as session:
            found = await _read(session, optimization_id, lock=True)
            if found.optimization.status not in FINAL:
                await self._end(session, found, status, result)

    async def _begin(self, session: AsyncSession, found: Record, name: str) -> Record:
        if (step := found.steps.get(name)) is not None:
            if step.status == StepStatus.RUNNING:
                step.attempt += 1
            return found
        step = models.OptimizationStep(
            optimization_id=found.optimization.id,
            name=name,
            position=len(found.steps),
            status=StepStatus.RUNNING,
            attempt=1,
            started_at=now(),
            detail={},
        )
        session.add(step)
        await self._record(session, found, "step_started", {}, step=name, status=StepStatus.RUNNING)
        return Record(found.optimization, found.recommendation, {**found.steps, name: step})

    async def _end(self, session: AsyncSession, found: Record, status: OptimizationStatus, result: Result) -> None:
        found.optimization.status, found.optimization.completed_at = status, now()
        found.optimization.result = result.model_dump(mode="json")
        found.recommendation.status = RecommendationStatus(status)
        event: EventType = (
            "optimization_completed" if status == OptimizationStatus.COMPLETED else "optimization_rolled_back"
        )
        await self._record(session, found, event, found.optimization.result, status=status)

    async def _record(
        self,
        session: AsyncSession,
        found: Record,
        event: EventType,
        payload: dict[str, Any],
        *,
        status: str,
        step: str | None = None,
    ) -> None:
        """Record an event with the progress so far: the share of the planned steps that are completed."""
        plan = self._plans[found.optimization.type]
        completed = [name for name in plan if name in found.steps and found.steps[name].status == StepStatus.COMPLETED]
        await session.flush()
        await record(
            session,
            found.optimization.customer_id,
            event,
            "orchestrator",
            payload,
            optimization_id=found.optimization.id,
            step=step,
            status=status,
            progress=len(completed) / len(plan),
        )


async def _read(session: AsyncSession, optimization_id: str, *, lock: bool = False) -> Record:
    optimization = await session.get_one(models.Optimization, optimization_id, with_for_update=lock)
    recommendation = await session.get_one(models.Recommendation, optimization.recommendation_id)
    table = models.OptimizationStep
    query = select(table).where(table.optimization_id == optimization_id).order_by(table.position)
    steps = await session.scalars(query)
    return Record(optimization, recommendation, {step.name: step for step in steps})


async def _lock(session: AsyncSession, optimization_id: str) -> models.Optimization:
    return await session.get_one(models.Optimization, optimization_id, with_for_update=True)
