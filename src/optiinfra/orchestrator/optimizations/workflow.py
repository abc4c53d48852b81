"""Carrying an optimization out, durably: each step once, and all that was begun undone when one fails."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Annotated, Any

import structlog
from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID, StepOptions
from dbos import error as dbos_error
from fastapi import Depends, Request

from optiinfra.api.common import now
from optiinfra.api.customers import Deployment, Infrastructure
from optiinfra.api.recommendations import Result
from optiinfra.clouds.protocol import CloudError
from optiinfra.domain.optimization import STEPS, undo_name, undo_order
from optiinfra.kit.logging import bind_trace
from optiinfra.orchestrator.agents.service import AgentError
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.optimizations import journal
from optiinfra.orchestrator.optimizations.rollout import STEP_ACTIONS
from optiinfra.orchestrator.optimizations.run import Run, Snapshot, StepError, load
from optiinfra.orchestrator.outcomes import service as outcomes
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.service import CommandError
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)


def _patient(name: str) -> StepOptions:
    """A step that is tried again while it raises: what the outside refuses is an answer, not an exception."""
    return {"name": name, "retries_allowed": True, "interval_seconds": 0.5, "max_attempts": 6}


StepAction = Callable[[Run], Awaitable[dict[str, Any]]]
DurableStep = Callable[..., Coroutine[Any, Any, str | None]]


@DBOS.dbos_class()
class OptimizationWorkflow(DBOSConfiguredInstance):
    """Runs optimizations; the workflow's id is the optimization's id."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(config_name="optimizations")
        self._platform = platform

    async def start(self, optimization_id: str) -> None:
        """Begin, or do nothing when it has begun already."""
        with SetWorkflowID(optimization_id):
            await DBOS.start_workflow_async(self.run, optimization_id)

    async def start_rollback(self, optimization_id: str) -> None:
        """Undo a completed optimization, or do nothing when that has begun already."""
        with SetWorkflowID(f"{optimization_id}:rollback"):
            await DBOS.start_workflow_async(self.roll_back, optimization_id)

    @DBOS.workflow()
    async def run(self, optimization_id: str) -> None:
        """Carry out every step, then measure; on a failure undo what was begun."""
        steps = await DBOS.run_step_async(_patient("plan"), self._plan, optimization_id)
        begun: list[str] = []
        for step in steps:
            begun.append(step)
            if (failure := await self._step(step, self._do, optimization_id, step)) is not None:
                await self._undo_all(optimization_id, begun, failure)
                return
        if (failure := await self._step("measure_result", self._measure_result, optimization_id)) is not None:
            await self._undo_all(optimization_id, begun, failure)

    @DBOS.workflow()
    async def roll_back(self, optimization_id: str) -> None:
        """Undo every step of a completed optimization."""
        steps = await DBOS.run_step_async(_patient("plan"), self._plan, optimization_id)
        await self._undo_all(optimization_id, steps, "rolled back on request")

    async def _undo_all(self, optimization_id: str, begun: list[str], failure: str) -> None:
        await DBOS.run_step_async(_patient("begin_rollback"), self._begin_rollback, optimization_id, failure)
        for step in undo_order(begun):
            problem = await self._step(undo_name(step), self._undo, optimization_id, step)
            if problem is not None:
                await self._step(
                    "finish", self._finish, optimization_id, f"{failure}; then {undo_name(step)} failed: {problem}"
                )
                return
        await self._step("finish", self._finish_rollback, optimization_id, failure)

    async def _step(self, name: str, function: DurableStep, *args: str) -> str | None:
        """Run a durable step that returns why it failed, or None."""
        try:
            failure: str | None = await DBOS.run_step_async(_patient(name), function, *args)
        except (
            dbos_error.DBOSException
        ) as error:  # it kept raising: not an answer from outside, but a defect or a lost store
            log.exception("step gave up", step=name, args=args)
            return f"internal error: {error}"
        return failure

    async def _plan(self, optimization_id: str) -> list[str]:
        async with self._platform.database.transaction() as session:
            row = await session.get_one(models.Optimization, optimization_id)
        return list(STEPS[row.type])  # type: ignore[index]  # written from the same literals

    async def _do(self, optimization_id: str, name: str) -> str | None:
        async with self._platform.database.transaction() as session:
            row = await session.get_one(models.Optimization, optimization_id)
        if row.rollback_reason is not None:
            return row.rollback_reason
        return await self._act(optimization_id, name, name, STEP_ACTIONS[name].do)

    async def _undo(self, optimization_id: str, step: str) -> str | None:
        return await self._act(optimization_id, undo_name(step), step, STEP_ACTIONS[step].undo)

    async def _act(self, optimization_id: str, shown: str, step: str, action: StepAction) -> str | None:
        """Do one step, or undo it, unless it was done before a crash. Returns why it failed."""
        row = await journal.begin_step(self._platform.database, optimization_id, shown)
        if row.status != "running":
            return str(row.detail["error"]) if row.status == "failed" else None
        undoing = shown != step
        detail: dict[str, Any] = {}
        error: str | None = None
        try:
            async with asyncio.timeout(await self._seconds_left(optimization_id, undoing=undoing)):
                detail = await action(await load(self._platform, optimization_id, shown))
        except (StepError, CommandError, AgentError, CloudError) as refusal:
            error = str(refusal)
        except TimeoutError:
            error = "the optimization's deadline passed"
        if error:
            log.warning("step failed", optimization_id=optimization_id, step=shown, error=error)
        await journal.end_step(self._platform.database, optimization_id, shown, detail, error)
        return error

    async def _seconds_left(self, optimization_id: str, *, undoing: bool) -> float:
        deadline = self._platform.settings.optimization_deadline_seconds
        if undoing:  # going back has the time it needs, but never for ever
            return deadline
        async with self._platform.database.transaction() as session:
            row = await session.get_one(models.Optimization, optimization_id)
            bind_trace(row.trace_id)
        return max(0.0, ((row.started_at or now()) + timedelta(seconds=deadline) - now()).total_seconds())

    async def _measure_result(self, optimization_id: str) -> str | None:
        run = await load(self._platform, optimization_id, "measure_result")
        async with self._platform.database.transaction() as session:
            shift = await session.get_one(models.OptimizationStep, (optimization_id, "full_migration"))
        try:
            result = await outcomes.measure(run, shift.detail["verdicts"])
        except (CommandError, CloudError) as refusal:
            return f"the result could not be measured: {refusal}"
        await outcomes.remember(run, result)
        await journal.finish(self._platform.database, optimization_id, "completed", result)
        return None

    async def _begin_rollback(self, optimization_id: str, failure: str) -> None:
        await journal.begin_rollback(self._platform.database, optimization_id, failure)

    async def _finish_rollback(self, optimization_id: str, failure: str) -> str | None:
        run = await load(self._platform, optimization_id, "finish")
        try:
            deployment = await run.deployment()
            estate = await inventory.refresh(self._platform, run.customer_id)
        except (CommandError, CloudError) as refusal:
            await self._finish(optimization_id, f"{failure}; whether all is as before could not be seen: {refusal}")
            return None
        restored = _shape(run.snapshot.deployment, run.snapshot) == _shape(deployment, estate)
        result = self._unsuccessful(run, failure).model_copy(update={"original_state_restored": restored})
        await journal.finish(self._platform.database, optimization_id, "rolled_back" if restored else "failed", result)
        return None

    async def _finish(self, optimization_id: str, failure: str) -> str | None:
        run = await load(self._platform, optimization_id, "finish")
        await journal.finish(self._platform.database, optimization_id, "failed", self._unsuccessful(run, failure))
        return None

    @staticmethod
    def _unsuccessful(run: Run, failure: str) -> Result:
        return Result(
            success=False,
            predicted_savings=run.draft.estimated_savings,
            cost_before=run.snapshot.cost,
            p95_before=run.snapshot.p95_latency_ms,
            quality_before=run.baseline_quality,
            error=failure,
        )


def _shape(deployment: Deployment, estate: Snapshot | Infrastructure) -> object:
    """What must be as it was; ids may differ."""
    used = {engine.instance_id for engine in deployment.engines}
    kinds = sorted(
        (i.provider, i.region, i.instance_type, i.lifecycle, i.state) for i in estate.instances if i.instance_id in used
    )
    return kinds, sorted(round(weight, 6) for weight in deployment.weights.values()), deployment.engine_args


def _workflow(request: Request) -> OptimizationWorkflow:
    workflow: OptimizationWorkflow = request.app.state.optimizations
    return workflow


CurrentWorkflows = Annotated[OptimizationWorkflow, Depends(_workflow)]
