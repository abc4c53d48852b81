"""What one optimization's steps work with: its rows, its cloud, its customer's runtime."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from optiinfra.api.agents import Draft
from optiinfra.api.common import Wire, now
from optiinfra.api.customers import Deployment, Infrastructure, Instance
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.api.runtimes import CommandKind, Discover, GoldenAnswer, Measure, MeasureOutput
from optiinfra.clouds.protocol import Cloud
from optiinfra.domain.latency import quantile
from optiinfra.domain.savings import total
from optiinfra.kit.ids import new_id
from optiinfra.orchestrator.inventory import service as inventory
from optiinfra.orchestrator.inventory.clouds import cloud_of
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.service import order
from optiinfra.stores.postgres import models


class StepError(Exception):
    """A step cannot be done, or what it checked does not hold; the text is shown to the customer."""


class Snapshot(Wire):
    """The deployment before anything was changed: dollars a month, milliseconds.

    `baseline_answers` are what its engines answered to golden prompts when the change was judged.
    """

    deployment: Deployment
    instances: list[Instance]
    requests_dropped: int
    cost: float
    p95_latency_ms: float | None
    baseline_answers: list[GoldenAnswer]


@dataclass(frozen=True, slots=True)
class Run:
    """One step of an optimization, or its undoing."""

    platform: Platform
    optimization_id: str
    customer_id: str
    step: str
    draft: Draft
    parameters: SpotMigrationParameters
    baseline_quality: float
    snapshot: Snapshot
    cloud: Cloud

    @property
    def baseline_answers(self) -> list[GoldenAnswer]:
        """What the deployment answered before the change."""
        return self.snapshot.baseline_answers

    async def order(self, name: str, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        """Have the runtime do something once for this optimization; raises CommandError."""
        key = f"{self.optimization_id}:{name}"
        return await order(self.platform, self.customer_id, key, kind, payload)

    async def order_again(self, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        """As `order`, but anew each time: for what is harmless to repeat and stale when it is not."""
        return await self.order(f"{self.step}:{new_id('cmd')}", kind, payload)

    async def measure(self) -> MeasureOutput:
        """Have the deployment scraped now; what it did so far is then in the telemetry."""
        payload = Measure(deployment=self.parameters.deployment)
        return MeasureOutput.model_validate(await self.order_again("measure", payload))

    async def deployment(self) -> Deployment:
        """The deployment as its gateway describes it now; raises StepError when it is gone."""
        await self.order_again("discover", Discover())
        return deployment_in(await self.estate(), self.draft)

    async def estate(self) -> Infrastructure:
        """The estate as last seen."""
        async with self.platform.database.transaction() as session:
            return await inventory.describe(session, self.customer_id)


def deployment_in(estate: Infrastructure, draft: Draft) -> Deployment:
    """The deployment that a recommendation is about; raises StepError when it is gone."""
    try:
        return estate.deployment(draft.deployment_id)
    except KeyError:
        name = draft.parameters.get("deployment", draft.deployment_id)
        raise StepError(f"deployment {name} is gone from the customer's gateway") from None


async def load(platform: Platform, optimization_id: str, step: str) -> Run:
    """Everything that a step needs. Raises StepError while there is no snapshot, or when the account is gone."""
    async with platform.database.transaction() as session:
        optimization = await session.get_one(models.Optimization, optimization_id)
        recommendation = await session.get_one(models.Recommendation, optimization.recommendation_id)
        accounts = await inventory.accounts(session, optimization.customer_id)
    if optimization.snapshot is None:
        raise StepError("nothing is known of how the deployment was before")
    draft = Draft.model_validate(recommendation.draft)
    parameters = SpotMigrationParameters.model_validate(draft.parameters)
    here = [a for a in accounts if (a.provider, a.region) == (parameters.provider, parameters.region)]
    if not here:
        raise StepError(f"no account of {parameters.provider} {parameters.region} is connected any more")
    return Run(
        platform=platform,
        optimization_id=optimization_id,
        customer_id=optimization.customer_id,
        step=step,
        draft=draft,
        parameters=parameters,
        baseline_quality=baseline_quality(recommendation),
        snapshot=Snapshot.model_validate(optimization.snapshot),
        cloud=await cloud_of(platform.settings, here[0]),
    )


def baseline_quality(recommendation: models.Recommendation) -> float:
    """The quality that the application agent established before the change; raises StepError when there is none."""
    baselines = [given["baseline_quality"] for given in recommendation.validations if given["baseline_quality"]]
    if not baselines:
        raise StepError("no quality baseline was established, so nothing could be held against it")
    return float(baselines[0])


async def take_snapshot(
    platform: Platform, optimization_id: str, recommendation: models.Recommendation, baseline: list[GoldenAnswer]
) -> Snapshot:
    """Read and measure the deployment as it is. Raises StepError when it is not any more what was recommended for."""
    draft = Draft.model_validate(recommendation.draft)
    parameters = SpotMigrationParameters.model_validate(draft.parameters)
    estate = await inventory.refresh(platform, recommendation.customer_id)
    deployment = deployment_in(estate, draft)
    instances = [instance for instance in estate.instances_of(deployment) if instance.state == "running"]
    if sorted(instance.instance_id for instance in instances) != sorted(parameters.source_instance_ids):
        raise StepError(f"{deployment.name} runs on other instances than when this was recommended: analyze again")
    payload, key = Measure(deployment=parameters.deployment), f"{optimization_id}:snapshot:{new_id('cmd')}"
    measured = MeasureOutput.model_validate(await order(platform, recommendation.customer_id, key, "measure", payload))
    since = now() - timedelta(seconds=platform.settings.measuring_window_seconds)
    serving = [replica for replica, weight in deployment.weights.items() if weight > 0]
    counts = await platform.telemetry.latencies(recommendation.customer_id, deployment.deployment_id, since, serving)
    return Snapshot(
        deployment=deployment,
        instances=instances,
        requests_dropped=measured.requests_dropped,
        cost=total(instance.monthly_cost for instance in instances),
        p95_latency_ms=1000.0 * quantile(counts, 0.95) if sum(counts.values()) else None,
        baseline_answers=baseline,
    )
