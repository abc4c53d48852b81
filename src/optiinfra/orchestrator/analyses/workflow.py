"""One analysis, durably: ask the agent, store its drafts, have the other agents validate each."""

from contextlib import suppress
from typing import Any

import structlog
from dbos import DBOS, DBOSConfiguredInstance
from sqlalchemy import select
from sqlalchemy.exc import NoResultFound

from optiinfra.api.agents import AnalyzeAnswer, AnalyzeTask, Draft, ValidateTask, Validation
from optiinfra.api.common import now
from optiinfra.api.customers import Deployment, Preferences
from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.clouds.protocol import CloudError
from optiinfra.domain.analysis import AnalysisStatus
from optiinfra.domain.recommendation import validators_of
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.agents.dispatch import AgentError, dispatch_task
from optiinfra.orchestrator.analyses.screening import screened
from optiinfra.orchestrator.durable import retry_on_errors, start_workflow
from optiinfra.orchestrator.errors import Conflict, NotFound
from optiinfra.orchestrator.events.service import record
from optiinfra.orchestrator.golden_prompts.service import ask_baseline
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.outcomes import service as outcomes
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.recommendations import service as recommendations
from optiinfra.orchestrator.runtimes.client import CustomerRuntime
from optiinfra.orchestrator.runtimes.commands import CommandError
from optiinfra.orchestrator.telemetry.service import store_figure
from optiinfra.stores.errors import StoreUnavailable
from optiinfra.stores.postgres import models

log = structlog.get_logger(__name__)


# Workflow and step names are persisted; renaming a function must not orphan running workflows.
@DBOS.dbos_class("AnalysisWorkflow")
class AnalysisWorkflow(DBOSConfiguredInstance):
    """Runs analyses; the workflow's id is the analysis' id."""

    def __init__(self, platform: Platform, optimizations: OptimizationWorkflow) -> None:
        super().__init__(config_name="analyses")
        self._platform, self._optimizations = platform, optimizations

    async def start(self, analysis_id: str) -> None:
        """Start the analysis; no-op if it was started already or deleted."""
        await start_workflow(self._platform.database, models.Analysis, analysis_id, self.run)

    @DBOS.workflow(name="analysis")
    async def run(self, analysis_id: str) -> None:
        """Run the analysis to completed or failed."""
        try:
            await self._run_phases(analysis_id)
        except NoResultFound:
            log.info("analysis stopped, customer deleted", analysis_id=analysis_id)
        except (
            Exception
        ) as error:  # a defect, or a store that stayed unavailable; the analysis must reach a final status
            if await DBOS.run_step_async(retry_on_errors("fail"), self._fail, analysis_id, f"internal error: {error}"):
                log.exception("analysis failed unexpectedly", analysis_id=analysis_id)

    async def _run_phases(self, analysis_id: str) -> None:
        drafted = await DBOS.run_step_async(retry_on_errors("draft"), self._draft, analysis_id)
        if "error" in drafted:
            await DBOS.run_step_async(retry_on_errors("fail"), self._fail, analysis_id, drafted["error"])
            return
        await DBOS.run_step_async(retry_on_errors("store"), self._store, analysis_id, drafted)
        for recommendation_id in drafted["drafts"]:
            await DBOS.run_step_async(retry_on_errors("validate"), self._validate, recommendation_id)
        approved = await DBOS.run_step_async(retry_on_errors("auto_approve"), self._auto_approve, analysis_id)
        for optimization_id in approved:
            with suppress(StoreUnavailable):  # it is approved, so recovery will start it
                await self._optimizations.start(optimization_id)
        await DBOS.run_step_async(retry_on_errors("complete"), self._complete, analysis_id, drafted["summary"])

    async def _draft(self, analysis_id: str) -> dict[str, Any]:
        """`{drafts: {recommendation_id: Draft}, summary}`, or `{error}`."""
        async with self._platform.database.transaction() as session:
            analysis = await session.get_one(models.Analysis, analysis_id)
            customer = await session.get_one(models.Customer, analysis.customer_id)
        try:
            estate = await inventory.refresh(self._platform, customer.id)
            task = AnalyzeTask(
                task_id=new_id("task"),
                customer_id=customer.id,
                preferences=Preferences.model_validate(customer.preferences),
                infrastructure=estate,
                spot_quotes=await inventory.spot_quotes(self._platform, customer.id, estate),
            )
            answer = await dispatch_task(self._platform, analysis.agent_type, task, AnalyzeAnswer)
        except (AgentError, CloudError) as error:
            return {"error": str(error)}
        known = await outcomes.known(self._platform.database, customer.id)
        kept, summary = screened(answer, self._platform.prices, task.preferences.max_risk, known)
        return {"drafts": {new_id("rec"): draft.model_dump(mode="json") for draft in kept}, "summary": summary}

    async def _store(self, analysis_id: str, drafted: dict[str, Any]) -> None:
        drafts = {key: Draft.model_validate(draft) for key, draft in drafted["drafts"].items()}
        async with self._platform.database.transaction() as session:
            analysis = await session.get_one(models.Analysis, analysis_id)
            await recommendations.store(
                session,
                self._platform,
                analysis.customer_id,
                analysis_id,
                analysis.agent_type,
                drafts,
            )

    async def _validate(self, recommendation_id: str) -> None:
        async with self._platform.database.transaction() as session:
            row = await session.get_one(models.Recommendation, recommendation_id)
        estate = await inventory.describe(self._platform.database, row.customer_id)
        draft = Draft.model_validate(row.draft)
        golden: list[GoldenAnswer] = []
        if draft.deployment_id is not None:
            try:
                golden = await self._ask_golden_prompts(row, estate.deployment(draft.deployment_id))
            except KeyError:
                log.warning("deployment removed before validation", recommendation_id=recommendation_id)
                await self._refuse(row, "its deployment no longer exists")
                return
        for validator in validators_of(row.agent_type):
            task = ValidateTask(
                task_id=new_id("task"),
                customer_id=row.customer_id,
                draft=draft,
                infrastructure=estate,
                golden_answers=golden if validator == "application" else [],
            )
            try:
                validation = await dispatch_task(self._platform, validator, task, Validation)
            except AgentError as error:
                validation = Validation(agent_type=validator, approved=False, reason=f"validation failed: {error}")
            async with self._platform.database.transaction() as session:
                await recommendations.add_validation(session, recommendation_id, validation)
            if validation.baseline_quality is not None and draft.deployment_id is not None:
                await store_figure(
                    self._platform,
                    row.customer_id,
                    draft.deployment_id,
                    "quality_score",
                    validation.baseline_quality,
                )

    async def _refuse(self, row: models.Recommendation, reason: str) -> None:
        """Refuse a recommendation that no agent can validate, so that it does not stay pending."""
        async with self._platform.database.transaction() as session:
            for validator in validators_of(row.agent_type):
                refusal = Validation(agent_type=validator, approved=False, reason=reason)
                await recommendations.add_validation(session, row.id, refusal)

    async def _ask_golden_prompts(self, row: models.Recommendation, deployment: Deployment) -> list[GoldenAnswer]:
        """Answers of the unchanged deployment; empty if the runtime cannot get any, as the validator then reports."""
        try:
            return await ask_baseline(CustomerRuntime(self._platform, row.customer_id), row.id, deployment)
        except CommandError as error:
            log.warning("quality baseline missing", recommendation_id=row.id, error=str(error))
            return []

    async def _auto_approve(self, analysis_id: str) -> list[str]:
        """Approve what the customer's preferences approve automatically; the ids of the optimizations to start."""
        async with self._platform.database.transaction() as session:
            analysis = await session.get_one(models.Analysis, analysis_id)
            customer = await session.get_one(models.Customer, analysis.customer_id)
            mine = models.Recommendation.analysis_id == analysis_id
            rows = [
                recommendations.to_wire(row) for row in await session.scalars(select(models.Recommendation).where(mine))
            ]
        preferences = Preferences.model_validate(customer.preferences)
        approved: list[str] = []
        for row in rows:
            if recommendations.approves_automatically(preferences, row):
                try:
                    approved.append(await recommendations.approve(self._platform, customer.id, row.id, "preferences"))
                except (
                    Conflict,
                    NotFound,
                ) as refusal:  # already decided by the customer, or another change is in progress
                    log.info("automatic approval refused", recommendation_id=row.id, reason=refusal.detail)
        return approved

    async def _complete(self, analysis_id: str, summary: str) -> None:
        await self._finish(analysis_id, AnalysisStatus.COMPLETED, summary=summary)

    async def _fail(self, analysis_id: str, error: str) -> bool:
        log.warning("analysis failed", analysis_id=analysis_id, error=error)
        return await self._finish(analysis_id, AnalysisStatus.FAILED, error=error)

    async def _finish(
        self, analysis_id: str, status: AnalysisStatus, summary: str | None = None, error: str | None = None
    ) -> bool:
        """False if the customer, and so the analysis, was deleted."""
        async with self._platform.database.transaction() as session:
            row = await session.get(models.Analysis, analysis_id, with_for_update=True)
            if row is None:
                return False
            if row.status != AnalysisStatus.STARTED:
                return True
            row.status, row.summary, row.error, row.completed_at = status, summary, error, now()
            payload = {"analysis_id": analysis_id, "status": status, "summary": summary, "error": error}
            await record(session, row.customer_id, "analysis_completed", "agent", payload, agent_type=row.agent_type)
        return True
