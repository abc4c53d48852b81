"""Runs an optimization durably: its steps in order; on failure, rolls back all started steps in reverse order."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
from dbos import DBOS, DBOSConfiguredInstance
from fastapi import Depends, Request

from optiinfra.api.agents import Draft
from optiinfra.api.recommendations import Result
from optiinfra.domain.optimization import OptimizationStatus, rollback_order, rollback_step
from optiinfra.orchestrator.durable import retry_on_errors, retry_while_unavailable, start_workflow
from optiinfra.orchestrator.optimizations.executor import StepExecutor, unmeasured, unsuccessful
from optiinfra.orchestrator.optimizations.journal import ON_REQUEST
from optiinfra.orchestrator.outcomes import service as outcomes
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)

DurableStep = Callable[..., Coroutine[Any, Any, str | None]]

_OUTCOME_ATTEMPTS = 13
"""Retries for over half an hour, so that an outage does not lose the outcome."""


# Workflow and step names are persisted; renaming a function must not orphan running workflows.
@DBOS.dbos_class("OptimizationWorkflow")
class OptimizationWorkflow(DBOSConfiguredInstance):
    """Runs optimizations; the workflow's id is the optimization's id."""

    def __init__(self, platform: Platform, executor: StepExecutor) -> None:
        super().__init__(config_name="optimizations")
        self._platform, self._executor, self._journal = platform, executor, executor.journal

    async def start(self, optimization_id: str) -> None:
        """Start the optimization; no-op if it was started already."""
        await start_workflow(self._platform.database, models.Optimization, optimization_id, self.run)

    async def start_rollback(self, optimization_id: str) -> None:
        """Roll a completed optimization back; no-op if that was started already."""
        workflow_id = f"{optimization_id}:rollback"
        await start_workflow(self._platform.database, models.Optimization, optimization_id, self.roll_back, workflow_id)

    @DBOS.workflow(name="optimization")
    async def run(self, optimization_id: str) -> None:
        """Execute every step, then measure the result; on a failure roll back the started steps."""
        steps = await DBOS.run_step_async(retry_on_errors("plan"), self._plan, optimization_id)
        for number, step in enumerate(steps, 1):
            failure = await self._step(step, self._executor.execute, optimization_id, step)
            if failure is not None:
                await self._roll_back_all(optimization_id, steps[:number], failure)
                return
        # The change is complete now. A failure to measure or store its result does not roll it back.
        try:
            result = await DBOS.run_step_async(retry_on_errors("measure_result"), self._measure_result, optimization_id)
        except Exception as error:
            log.exception("result measurement failed", optimization_id=optimization_id)
            result = await DBOS.run_step_async(
                retry_on_errors("unmeasured"), self._unmeasured, optimization_id, str(error)
            )
        await self._step("store_outcome", self._store_outcome, optimization_id, result, attempts=_OUTCOME_ATTEMPTS)
        requested = await DBOS.run_step_async(
            retry_while_unavailable("complete"), self._complete, optimization_id, result
        )
        if requested is not None:
            await self._roll_back_all(optimization_id, steps, requested)

    @DBOS.workflow(name="optimization_rollback")
    async def roll_back(self, optimization_id: str) -> None:
        """Roll back every step of a completed optimization."""
        steps = await DBOS.run_step_async(retry_on_errors("plan"), self._plan, optimization_id)
        await self._roll_back_all(optimization_id, steps, ON_REQUEST)

    async def _roll_back_all(self, optimization_id: str, begun: list[str], failure: str) -> None:
        """Roll back the started steps, last one first, and record the result in any case."""
        await DBOS.run_step_async(
            retry_while_unavailable("begin_rollback"), self._journal.begin_rollback, optimization_id, failure
        )
        for step in rollback_order(begun):
            problem = await self._step(rollback_step(step), self._executor.roll_back, optimization_id, step)
            if problem is not None:
                await self._finish(
                    optimization_id,
                    OptimizationStatus.FAILED,
                    f"{failure}; then {rollback_step(step)} failed: {problem}",
                )
                return
        try:
            restored, unknown = await DBOS.run_step_async(
                retry_while_unavailable("check_restored"), self._executor.check_restored, optimization_id
            )
        except Exception as error:  # a defect; the final status is still recorded
            log.exception("restored state check failed", optimization_id=optimization_id)
            restored, unknown = None, f"internal error: {error}"
        if unknown is not None:
            await self._finish(
                optimization_id,
                OptimizationStatus.FAILED,
                f"{failure}; could not verify that the original state was restored: {unknown}",
            )
            return
        status = OptimizationStatus.FAILED if restored is False else OptimizationStatus.ROLLED_BACK
        await self._finish(optimization_id, status, failure, restored=restored)

    async def _step(self, name: str, function: DurableStep, *args: Any, attempts: int = 8) -> str | None:
        """Run a durable step that returns why it failed, or None."""
        try:
            failure: str | None = await DBOS.run_step_async(retry_on_errors(name, attempts), function, *args)
        except Exception as error:  # every attempt raised: a defect, or a store that stayed unavailable
            log.exception("durable step failed", step=name, optimization_id=args[0])
            return f"internal error: {error}"
        return failure

    async def _finish(
        self, optimization_id: str, status: OptimizationStatus, failure: str, *, restored: bool | None = None
    ) -> None:
        await DBOS.run_step_async(
            retry_while_unavailable("finish_rollback"),
            self._finish_rollback,
            optimization_id,
            status,
            failure,
            restored=restored,
        )

    async def _plan(self, optimization_id: str) -> list[str]:
        return list(self._executor.type_of(await self._journal.read(optimization_id)).step_names)

    async def _measure_result(self, optimization_id: str) -> dict[str, Any]:
        return (await self._executor.measure_result(optimization_id)).model_dump(mode="json")

    async def _unmeasured(self, optimization_id: str, why: str) -> dict[str, Any]:
        return unmeasured(await self._journal.read(optimization_id), why).model_dump(mode="json")

    async def _store_outcome(self, optimization_id: str, result: dict[str, Any]) -> None:
        record = await self._journal.read(optimization_id)
        draft = Draft.model_validate(record.recommendation.draft)
        await outcomes.store(self._platform, record.optimization, draft, Result.model_validate(result))

    async def _complete(self, optimization_id: str, result: dict[str, Any]) -> str | None:
        return await self._journal.complete(optimization_id, Result.model_validate(result))

    async def _finish_rollback(
        self, optimization_id: str, status: OptimizationStatus, failure: str, *, restored: bool | None
    ) -> None:
        result = unsuccessful(await self._journal.read(optimization_id), failure, restored=restored)
        await self._journal.finish_rollback(optimization_id, status, result)


async def _workflow(request: Request) -> OptimizationWorkflow:
    workflow: OptimizationWorkflow = request.app.state.optimizations
    return workflow


CurrentWorkflows = Annotated[OptimizationWorkflow, Depends(_workflow)]
