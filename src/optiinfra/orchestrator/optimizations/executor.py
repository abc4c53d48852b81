"""Executes and rolls back steps, and measures the result.

A step may run again after a crash, so the types' steps are idempotent; one that has ended is not repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from optiinfra.api.agents import Draft, Validation
from optiinfra.api.common import now
from optiinfra.api.recommendations import Result
from optiinfra.clouds.protocol import Cloud, CloudError
from optiinfra.clouds.retries import retry
from optiinfra.domain.optimization import StepStatus, rollback_step
from optiinfra.kit.logging import bind_trace
from optiinfra.orchestrator.agents.dispatch import AgentError
from optiinfra.orchestrator.errors import Conflict
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.inventory.clouds import cloud_of
from optiinfra.orchestrator.inventory.repository import connected_account
from optiinfra.orchestrator.optimizations.context import Detail, Snapshot, StepContext, StepError
from optiinfra.orchestrator.optimizations.journal import Journal, Record
from optiinfra.orchestrator.optimizations.types.base import OptimizationType, Registry
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.client import CustomerRuntime
from optiinfra.orchestrator.runtimes.commands import CommandError, cancel_commands
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)

T = TypeVar("T")

EXPECTED_ERRORS = (StepError, CommandError, AgentError, CloudError, Conflict)
"""Expected failures of runtime, cloud, agents or rules; shown to the customer."""

AnyType = OptimizationType[Any, Any]
AnyContext = StepContext[Any, Any]
Connect = Callable[[Settings, models.CloudAccount], Awaitable[Cloud]]
"""Opens a customer's cloud account; raises CloudError."""


class StepExecutor:
    """Runs the steps of the registered optimization types."""

    def __init__(self, platform: Platform, types: Registry, connect: Connect = cloud_of) -> None:
        self._platform, self._types, self._connect = platform, types, connect
        self.journal = Journal(platform.database, {name: kind.step_names for name, kind in types.items()})

    def type_of(self, record: Record) -> AnyType:
        """The type of an optimization."""
        return self._types[record.optimization.type]

    async def execute(self, optimization_id: str, name: str) -> str | None:
        """Execute a step, unless it has ended or a rollback was requested. Returns the reason of a failure, or None."""
        record = await self._begun(self.journal.begin_step(optimization_id, name))
        if (step := record.steps.get(name)) is None:
            return record.optimization.rollback_reason
        if step.status != StepStatus.RUNNING:
            return record.error_of(name)
        if record.optimization.rollback_reason is not None:
            await self.journal.end_step(optimization_id, name, {}, record.optimization.rollback_reason)
            return record.optimization.rollback_reason
        kind = self.type_of(record)
        attempt = partial(self._act, record, name, kind.step(name).execute)
        return await self._run(record, name, attempt, self._seconds_left(record.optimization))

    async def roll_back(self, optimization_id: str, name: str) -> str | None:
        """Roll a step back, unless it never began or its rollback has ended. Returns the reason of a failure, or None.

        Every cloud error is retried until the deadline: a partial rollback is the worst outcome, and missing roles or
        capacity may return.
        """
        record = await self._begun(self.journal.begin_rollback_step(optimization_id, name))
        shown = rollback_step(name)
        if (step := record.steps.get(shown)) is None:
            return None  # nothing was changed
        if step.status != StepStatus.RUNNING:
            return record.error_of(shown)
        kind, settings = self.type_of(record), self._platform.settings
        attempt = partial(self._act, record, shown, kind.step(name).rollback)
        seconds = settings.optimization_deadline_seconds + settings.rollback_retry_seconds
        return await self._run(record, shown, partial(self._retry, attempt), seconds)

    async def measure_result(self, optimization_id: str) -> Result:
        """Measure the result. If it cannot be measured, returns success with an error."""
        record = await self._begun(self.journal.read(optimization_id))
        kind = self.type_of(record)
        try:
            result = await kind.measure_result(await self._context(record, "measure_result"))
        except EXPECTED_ERRORS as failure:
            return unmeasured(record, str(failure))
        if result.actual_savings is not None and result.actual_savings <= 0 < result.predicted_savings:
            return result.model_copy(update={"success": False, "error": "the inventory shows no savings"})
        return result

    async def check_restored(self, optimization_id: str) -> tuple[bool | None, str | None]:
        """Whether everything is as before (None if nothing was changed), or the reason why it could not be checked.

        Also refreshes the inventory.
        """
        record = await self._begun(self.journal.read(optimization_id))
        if record.optimization.snapshot is None:
            return None, None
        kind = self.type_of(record)

        async def attempt() -> bool:
            return await kind.is_restored(await self._context(record, "check_restored"))

        try:
            restored = await self._retry(attempt)
        except EXPECTED_ERRORS as failure:
            return None, str(failure)
        customer_id = record.optimization.customer_id
        try:
            await inventory.refresh(self._platform, customer_id)
        except CloudError as error:  # perhaps another account of the customer's; its own status shows it
            log.warning("inventory refresh failed", customer_id=customer_id, error=str(error))
        return restored, None

    async def _begun(self, reading: Awaitable[Record]) -> Record:
        """The record; binds the trace id of the approval to later log messages."""
        record = await reading
        bind_trace(record.optimization.trace_id)
        return record

    async def _run(
        self, record: Record, name: str, attempt: Callable[[], Awaitable[Detail]], seconds: float
    ) -> str | None:
        optimization, detail, error = record.optimization, Detail(), None
        if record.steps[name].attempt > 1:  # commands pending since a crash are issued again
            await cancel_commands(self._platform, optimization.customer_id, f"{optimization.id}:{name}:")
        try:
            async with asyncio.timeout(seconds) as deadline:
                detail = await attempt()
        except EXPECTED_ERRORS as failure:
            error = str(failure)
        except TimeoutError:
            if not deadline.expired():
                raise
            error = "the optimization's deadline passed"
        if error:
            log.warning("optimization step failed", optimization_id=optimization.id, step=name, error=error)
        await self.journal.end_step(optimization.id, name, detail, error)
        return error

    async def _act(self, record: Record, name: str, action: Callable[[AnyContext], Awaitable[Detail]]) -> Detail:
        return await action(await self._context(record, name))

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await retry(attempt, self._platform.settings.rollback_retry_seconds)

    def _seconds_left(self, optimization: models.Optimization) -> float:
        deadline = (optimization.started_at or now()) + timedelta(
            seconds=self._platform.settings.optimization_deadline_seconds
        )
        return max(0.0, (deadline - now()).total_seconds())

    async def _context(self, record: Record, step: str) -> AnyContext:
        """The context of a step. The first step takes the snapshot before anything is changed."""
        optimization, recommendation = record.optimization, record.recommendation
        kind, draft = self.type_of(record), Draft.model_validate(recommendation.draft)
        parameters = kind.parameters.model_validate(draft.parameters)
        kept = optimization.snapshot
        instance_ids = kind.instance_ids(parameters)
        account = await self._account(optimization, instance_ids)
        context: AnyContext = StepContext(
            platform=self._platform,
            optimization_id=optimization.id,
            recommendation_id=recommendation.id,
            customer_id=optimization.customer_id,
            step=step,
            draft=draft,
            validations=[Validation.model_validate(given) for given in recommendation.validations],
            parameters=parameters,
            instance_ids=instance_ids,
            account_id=account.id,
            cloud=await self._connect(self._platform.settings, account),
            runtime=CustomerRuntime(self._platform, optimization.customer_id),
            snapshot=None,
            details={name: one.detail for name, one in record.steps.items() if one.status == StepStatus.COMPLETED},
        )
        if kept is None:
            snapshot: Snapshot = await kind.take_snapshot(context)
            kept = snapshot.model_dump(mode="json") | {"cloud_account_id": account.id}
            await self.journal.store_snapshot(optimization.id, kept)
        return replace(context, snapshot=kind.snapshot.model_validate(kept))

    async def _account(self, optimization: models.Optimization, instance_ids: Sequence[str]) -> models.CloudAccount:
        """The cloud account that holds the affected instances: the snapshot's one if there is a snapshot."""
        kept = optimization.snapshot  # the instances themselves may no longer exist
        async with self._platform.database.transaction() as session:
            if kept is None:
                return await inventory.account_of(session, optimization.customer_id, instance_ids)
            account = await connected_account(session, optimization.customer_id, kept["cloud_account_id"])
        if account is None:
            raise StepError("the cloud account that holds the instances is no longer connected")
        return account


def unmeasured(record: Record, why: str) -> Result:
    """The result of a completed change that could not be measured."""
    savings = Draft.model_validate(record.recommendation.draft).estimated_savings
    error = f"made, but the result could not be measured: {why}"
    return Result(success=True, predicted_savings=savings, error=error)


def unsuccessful(record: Record, failure: str, *, restored: bool | None = None) -> Result:
    """The result of a change that was not completed. Uses only the record, no store or cloud."""
    kept = record.optimization.snapshot
    snapshot = Snapshot.model_validate(kept) if kept else None
    return Result(
        success=False,
        predicted_savings=Draft.model_validate(record.recommendation.draft).estimated_savings,
        cost_before=snapshot.cost if snapshot else None,
        p95_before=snapshot.p95_latency_ms if snapshot else None,
        quality_before=snapshot.quality if snapshot else None,
        original_state_restored=restored,
        error=failure,
    )
