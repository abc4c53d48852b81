"""Carrying an optimization out, durably: each step once, and all that was begun undone when one fails."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import structlog
from dbos import DBOS, DBOSConfiguredInstance
from fastapi import Depends, Request

from optiinfra.api.agents import Draft
from optiinfra.api.common import now
from optiinfra.api.recommendations import Result
from optiinfra.clouds.patience import patiently
from optiinfra.clouds.protocol import CloudError
from optiinfra.domain.optimization import STEPS, OptimizationStatus, StepStatus, rollback_order, rollback_step
from optiinfra.kit.logging import bind_trace
from optiinfra.orchestrator.agents.service import AgentError
from optiinfra.orchestrator.durable import begin, patient, unfailing
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.optimizations import journal
from optiinfra.orchestrator.optimizations.rollout import STEP_ACTIONS, is_restored
from optiinfra.orchestrator.optimizations.run import Run, Snapshot, StepError, deployment_in, load, take_snapshot
from optiinfra.orchestrator.optimizations.stage import baseline_answers
from optiinfra.orchestrator.outcomes import service as outcomes
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.service import CommandError, withdraw
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)

T = TypeVar("T")

StepAction = Callable[[Run], Awaitable[dict[str, Any]]]
DurableStep = Callable[..., Coroutine[Any, Any, str | None]]

_REFUSALS = (StepError, CommandError, AgentError, CloudError)
"""What the outside, or a rule of ours, answers: shown to the customer, and no reason to try the same again."""

_REMEMBERING_ATTEMPTS = 13
"""Half an hour and more for a store to come back, rather than to forget what was learnt."""


@DBOS.dbos_class()
class OptimizationWorkflow(DBOSConfiguredInstance):
    """Runs optimizations; the workflow's id is the optimization's id."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(config_name="optimizations")
        self._platform = platform

    async def start(self, optimization_id: str) -> None:
        """Begin, or do nothing when it has begun already."""
        await begin(self._platform.database, models.Optimization, optimization_id, self.run)

    async def start_rollback(self, optimization_id: str) -> None:
        """Undo a completed optimization, or do nothing when that has begun already."""
        workflow_id = f"{optimization_id}:rollback"
        await begin(self._platform.database, models.Optimization, optimization_id, self.roll_back, workflow_id)

    @DBOS.workflow()
    async def run(self, optimization_id: str) -> None:
        """Carry out every step, then measure; on a failure undo what was begun."""
        steps = await DBOS.run_step_async(patient("plan"), self._plan, optimization_id)
        for number, step in enumerate(steps, 1):
            if (failure := await self._step(step, self._do, optimization_id, step)) is not None:
                await self._undo_all(optimization_id, steps[:number], failure)
                return
        # From here on nothing is undone because it could not be measured or stored: the change itself is made.
        try:
            result = await DBOS.run_step_async(patient("measure_result"), self._measure_result, optimization_id)
        except Exception as error:
            log.exception("result not measured", optimization_id=optimization_id)
            result = await DBOS.run_step_async(patient("unmeasured"), self._unmeasured, optimization_id, str(error))
        await self._step("remember", self._remember, optimization_id, result, attempts=_REMEMBERING_ATTEMPTS)
        asked = await DBOS.run_step_async(unfailing("complete"), self._complete, optimization_id, result)
        if asked is not None:
            await self._undo_all(optimization_id, steps, asked)

    @DBOS.workflow()
    async def roll_back(self, optimization_id: str) -> None:
        """Undo every step of a completed optimization."""
        steps = await DBOS.run_step_async(patient("plan"), self._plan, optimization_id)
        await self._undo_all(optimization_id, steps, journal.ON_REQUEST)

    async def _undo_all(self, optimization_id: str, begun: list[str], failure: str) -> None:
        await DBOS.run_step_async(unfailing("begin_rollback"), self._begin_rollback, optimization_id, failure)
        for step in rollback_order(begun):
            problem = await self._step(rollback_step(step), self._undo, optimization_id, step)
            if problem is not None:
                why = f"{failure}; then {rollback_step(step)} failed: {problem}"
                await DBOS.run_step_async(unfailing("finish"), self._finish, optimization_id, why)
                return
        try:
            restored, unseen = await DBOS.run_step_async(unfailing("look"), self._look, optimization_id)
        except Exception as error:  # a defect: an end is noted all the same
            log.exception("not seen whether all is as before", optimization_id=optimization_id)
            restored, unseen = None, f"internal error: {error}"
        if unseen is not None:
            why = f"{failure}; whether all is as before could not be seen: {unseen}"
            await DBOS.run_step_async(unfailing("finish"), self._finish, optimization_id, why)
            return
        await DBOS.run_step_async(unfailing("finish"), self._finish_undone, optimization_id, failure, restored=restored)

    async def _step(self, name: str, function: DurableStep, *args: Any, attempts: int = 8) -> str | None:
        """Run a durable step that returns why it failed, or None."""
        try:
            failure: str | None = await DBOS.run_step_async(patient(name, attempts), function, *args)
        except Exception as error:  # it kept raising, now or before a crash: a defect, or a store that stayed away
            log.exception("step gave up", step=name, optimization_id=args[0])
            return f"internal error: {error}"
        return failure

    async def _plan(self, optimization_id: str) -> list[str]:
        row, _ = await self._rows(optimization_id)
        return list(STEPS[row.type])  # type: ignore[index]  # written from the same literals

    async def _do(self, optimization_id: str, name: str) -> str | None:
        row, _ = await self._rows(optimization_id)
        if row.rollback_reason is not None:
            return row.rollback_reason
        return await self._act(optimization_id, name, name, STEP_ACTIONS[name].do)

    async def _undo(self, optimization_id: str, step: str) -> str | None:
        row, _ = await self._rows(optimization_id)
        if row.snapshot is None or not await journal.was_begun(self._platform.database, optimization_id, step):
            return None  # nothing was changed
        return await self._act(optimization_id, rollback_step(step), step, STEP_ACTIONS[step].undo)

    async def _act(self, optimization_id: str, shown: str, step: str, action: StepAction) -> str | None:
        """Do one step, or undo it, unless it was done before a crash. Returns why it failed."""
        row = await journal.begin_step(self._platform.database, optimization_id, shown)
        if row.status != StepStatus.RUNNING:
            return str(row.detail["error"]) if row.status == StepStatus.FAILED else None
        optimization, _ = await self._rows(optimization_id)
        if row.attempt > 1:  # what was ordered before the crash and is unanswered is ordered anew
            await withdraw(self._platform, optimization.customer_id, f"{optimization_id}:{shown}:")
        detail: dict[str, Any] = {}
        error: str | None = None

        async def attempt() -> dict[str, Any]:
            await self._ensure_snapshot(optimization_id)
            return await action(await load(self._platform, optimization_id, shown))

        try:
            async with asyncio.timeout(self._seconds_left(optimization, undoing=shown != step)) as deadline:
                detail = await (attempt() if shown == step else going_back(attempt, self._platform.settings))
        except _REFUSALS as refusal:
            error = str(refusal)
        except TimeoutError:
            if not deadline.expired():
                raise
            error = "the optimization's deadline passed"
        if error:
            log.warning("step failed", optimization_id=optimization_id, step=shown, error=error)
        await journal.end_step(self._platform.database, optimization_id, shown, detail, error)
        return error

    def _seconds_left(self, optimization: models.Optimization, *, undoing: bool) -> float:
        settings = self._platform.settings
        deadline = settings.optimization_deadline_seconds
        if undoing:  # going back has the time it needs, but never for ever
            return deadline + settings.undo_patience_seconds
        return max(0.0, ((optimization.started_at or now()) + timedelta(seconds=deadline) - now()).total_seconds())

    async def _ensure_snapshot(self, optimization_id: str) -> None:
        """Keep how everything is before the first step changes anything."""
        row, recommendation = await self._rows(optimization_id)
        if row.snapshot is not None:
            return
        async with self._platform.database.transaction() as session:
            estate = await inventory.describe(session, row.customer_id)
        deployment = deployment_in(estate, Draft.model_validate(recommendation.draft))
        baseline = await baseline_answers(self._platform, recommendation, deployment)
        snapshot = await take_snapshot(self._platform, optimization_id, recommendation, baseline)
        async with self._platform.database.transaction() as session:
            row = await session.get_one(models.Optimization, optimization_id, with_for_update=True)
            row.snapshot = snapshot.model_dump(mode="json")

    async def _measure_result(self, optimization_id: str) -> dict[str, Any]:
        async with self._platform.database.transaction() as session:
            shift = await session.get_one(models.OptimizationStep, (optimization_id, "full_migration"))
        try:
            run = await load(self._platform, optimization_id, "measure_result")
            result = await outcomes.measure(run, shift.detail["verdicts"])
        except _REFUSALS as refusal:
            return await self._unmeasured(optimization_id, str(refusal))
        return result.model_dump(mode="json")

    async def _unmeasured(self, optimization_id: str, why: str) -> dict[str, Any]:
        """The result of a change that is made, when what it brought cannot be seen."""
        _, recommendation = await self._rows(optimization_id)
        savings = Draft.model_validate(recommendation.draft).estimated_savings
        error = f"made, but the result could not be measured: {why}"
        return Result(success=True, predicted_savings=savings, error=error).model_dump(mode="json")

    async def _remember(self, optimization_id: str, result: dict[str, Any]) -> None:
        row, recommendation = await self._rows(optimization_id)
        draft = Draft.model_validate(recommendation.draft)
        await outcomes.remember(self._platform, row, draft, Result.model_validate(result))

    async def _complete(self, optimization_id: str, result: dict[str, Any]) -> str | None:
        """Finish; or return why not, when going back was asked for meanwhile."""
        return await journal.complete(self._platform.database, optimization_id, Result.model_validate(result))

    async def _begin_rollback(self, optimization_id: str, failure: str) -> None:
        await journal.begin_rollback(self._platform.database, optimization_id, failure)

    async def _look(self, optimization_id: str) -> tuple[bool | None, str | None]:
        """Whether all is as before, None when nothing was changed; and why that could not be seen.

        What there is now is shown to the customer.
        """
        row, _ = await self._rows(optimization_id)
        if row.snapshot is None:
            return None, None

        async def looked() -> bool:
            return await is_restored(await load(self._platform, optimization_id, "look"))

        try:
            restored = await going_back(looked, self._platform.settings)
        except _REFUSALS as refusal:
            return None, str(refusal)
        try:
            await inventory.refresh(self._platform, row.customer_id)
        except CloudError as error:  # another account of the customer's, perhaps: that one shows it itself
            log.warning("inventory not refreshed", customer_id=row.customer_id, error=str(error))
        return restored, None

    async def _finish_undone(self, optimization_id: str, failure: str, *, restored: bool | None) -> None:
        result = (await self._unsuccessful(optimization_id, failure)).model_copy(
            update={"original_state_restored": restored}
        )
        status = OptimizationStatus.FAILED if restored is False else OptimizationStatus.ROLLED_BACK
        await journal.finish(self._platform.database, optimization_id, status, result)

    async def _finish(self, optimization_id: str, failure: str) -> None:
        result = await self._unsuccessful(optimization_id, failure)
        await journal.finish(self._platform.database, optimization_id, OptimizationStatus.FAILED, result)

    async def _unsuccessful(self, optimization_id: str, failure: str) -> Result:
        """The result of what did not come about, from what is known of it: nobody outside is asked."""
        row, recommendation = await self._rows(optimization_id)
        snapshot = Snapshot.model_validate(row.snapshot) if row.snapshot else None
        baselines = [given["baseline_quality"] for given in recommendation.validations if given["baseline_quality"]]
        return Result(
            success=False,
            predicted_savings=Draft.model_validate(recommendation.draft).estimated_savings,
            cost_before=snapshot.cost if snapshot else None,
            p95_before=snapshot.p95_latency_ms if snapshot else None,
            quality_before=baselines[0] if baselines else None,
            error=failure,
        )

    async def _rows(self, optimization_id: str) -> tuple[models.Optimization, models.Recommendation]:
        """The optimization and what it carries out; what follows is logged under the approval's trace."""
        async with self._platform.database.transaction() as session:
            row = await session.get_one(models.Optimization, optimization_id)
            recommendation = await session.get_one(models.Recommendation, row.recommendation_id)
        bind_trace(row.trace_id)
        return row, recommendation


async def going_back(attempt: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """Try again whatever the cloud says: half undone is the worst of all ends, and roles and capacity come back."""
    return await patiently(attempt, settings.undo_patience_seconds)


def _workflow(request: Request) -> OptimizationWorkflow:
    workflow: OptimizationWorkflow = request.app.state.optimizations
    return workflow


CurrentWorkflows = Annotated[OptimizationWorkflow, Depends(_workflow)]
