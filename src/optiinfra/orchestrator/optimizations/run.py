"""What one optimization's steps work with: its rows, its cloud, its customer's runtime."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from optiinfra.api.agents import Draft, SpotParameters
from optiinfra.api.common import Wire, now
from optiinfra.api.customers import Deployment, Infrastructure, Instance
from optiinfra.api.runtimes import CommandKind, Discover, Measure, MeasureOutput
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
    """The deployment before anything was changed: dollars a month, milliseconds."""

    deployment: Deployment
    instances: list[Instance]
    requests_dropped: int
    cost: float
    p95_latency_ms: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One step of an optimization, or its undoing."""

    platform: Platform
    optimization_id: str
    customer_id: str
    step: str
    draft: Draft
    parameters: SpotParameters
    baseline_quality: float
    snapshot: Snapshot
    cloud: Cloud

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
        """The deployment as its gateway describes it now."""
        await self.order_again("discover", Discover())
        return (await self.estate()).deployment(self.draft.deployment_id)

    async def estate(self) -> Infrastructure:
        """The estate as last seen."""
        async with self.platform.database.transaction() as session:
            return await inventory.describe(session, self.customer_id)


async def take_snapshot(platform: Platform, optimization_id: str, customer_id: str, draft: Draft) -> Snapshot:
    """Read and measure the deployment as it is."""
    parameters = SpotParameters.model_validate(draft.parameters)
    estate = await inventory.refresh(platform, customer_id)
    deployment = estate.deployment(draft.deployment_id)
    instances = estate.instances_of(deployment)
    measured = MeasureOutput.model_validate(
        await order(
            platform,
            customer_id,
            f"{optimization_id}:snapshot",
            "measure",
            Measure(deployment=parameters.deployment),
        )
    )
    since = now() - timedelta(seconds=platform.settings.measuring_window_seconds)
    serving = [replica for replica, weight in deployment.weights.items() if weight > 0]
    counts = await platform.telemetry.latencies(customer_id, draft.deployment_id, since, serving)
    return Snapshot(
        deployment=deployment,
        instances=instances,
        requests_dropped=measured.requests_dropped,
        cost=total(instance.monthly_cost for instance in instances),
        p95_latency_ms=1000.0 * quantile(counts, 0.95) if sum(counts.values()) else None,
    )


async def load(platform: Platform, optimization_id: str, step: str) -> Run:
    """Everything that a step needs, the snapshot taken first where there is none yet."""
    async with platform.database.transaction() as session:
        optimization = await session.get_one(models.Optimization, optimization_id)
        recommendation = await session.get_one(models.Recommendation, optimization.recommendation_id)
        accounts = await inventory.accounts(session, optimization.customer_id)
    draft = Draft.model_validate(recommendation.draft)
    parameters = SpotParameters.model_validate(draft.parameters)
    here = [a for a in accounts if (a.provider, a.region) == (parameters.provider, parameters.region)]
    if not here:
        raise StepError(f"no account of {parameters.provider} {parameters.region} is connected any more")
    if optimization.snapshot is None:
        snapshot = await take_snapshot(platform, optimization_id, optimization.customer_id, draft)
        async with platform.database.transaction() as session:
            row = await session.scalars(
                select(models.Optimization).where(models.Optimization.id == optimization_id).with_for_update()
            )
            row.one().snapshot = snapshot.model_dump(mode="json")
    else:
        snapshot = Snapshot.model_validate(optimization.snapshot)
    baselines = [given["baseline_quality"] for given in recommendation.validations if given["baseline_quality"]]
    if not baselines:
        raise StepError("no quality baseline was established, so nothing could be held against it")
    return Run(
        platform=platform,
        optimization_id=optimization_id,
        customer_id=optimization.customer_id,
        step=step,
        draft=draft,
        parameters=parameters,
        baseline_quality=baselines[0],
        snapshot=snapshot,
        cloud=await cloud_of(platform.settings, here[0]),
    )
