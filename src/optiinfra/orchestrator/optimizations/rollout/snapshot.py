"""A deployment before it is changed, and what a change brought it."""

from collections.abc import Collection
from typing import Any

from optiinfra.api.customers import Deployment, Instance
from optiinfra.api.recommendations import Result
from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.domain.savings import compare, total
from optiinfra.orchestrator.golden_prompts.service import ask_baseline
from optiinfra.orchestrator.optimizations.context import (
    Detail,
    InitialContext,
    Snapshot,
    StepContext,
    StepError,
    deployment_in,
)
from optiinfra.orchestrator.telemetry.service import store_figure


class DeploymentSnapshot(Snapshot):
    """`baseline_answers` are what the engines answered to golden prompts when the change was validated."""

    deployment: Deployment
    instances: list[Instance]
    requests_dropped: int
    baseline_answers: list[GoldenAnswer]


RolloutContext = StepContext[Any, DeploymentSnapshot]


async def take_snapshot(change: InitialContext[Any]) -> DeploymentSnapshot:
    """Read and measure the deployment as it is.

    Raises StepError when it no longer runs on the instances that the change was recommended for, or when no quality
    baseline was established.
    """
    estate = await change.refresh_inventory()
    deployment = deployment_in(estate, change.draft)
    instances = [instance for instance in estate.instances_of(deployment) if instance.state == "running"]
    if sorted(instance.instance_id for instance in instances) != sorted(change.instance_ids):
        raise StepError(f"{deployment.name} runs on other instances than when this was recommended: analyze again")
    answers = await ask_baseline(change.runtime, change.recommendation_id, deployment)
    measured = await change.measure(deployment.name)
    serving = [replica for replica, weight in deployment.weights.items() if weight > 0]
    return DeploymentSnapshot(
        cost=total(instance.monthly_cost for instance in instances),
        p95_latency_ms=await change.recent_p95_ms(deployment.deployment_id, serving),
        quality=_baseline_quality(change),
        deployment=deployment,
        instances=instances,
        requests_dropped=measured.requests_dropped,
        baseline_answers=answers,
    )


async def measure_result(context: RolloutContext, made_instance_ids: Collection[str], judged: Detail) -> Result:
    """Measure the result of the change: costs from a new inventory, latency and quality from the verdicts.

    The costs include every instance that the deployment had or has, or that was created for the change, so that one
    that should have been terminated and still runs is no saving. `judged` holds the verdicts under all of the traffic.
    """
    snapshot = context.snapshot
    counters = await context.measure(snapshot.deployment.name)
    estate = await context.refresh_inventory()
    deployment = deployment_in(estate, context.draft)
    affected = {one.instance_id for one in (*snapshot.instances, *estate.instances_of(deployment))}
    affected |= set(made_instance_ids)
    cost_after = estate.cost_of(affected)
    latency, quality = judged["verdicts"]["performance"], judged["verdicts"]["application"]
    await store_figure(
        context.platform, context.customer_id, deployment.deployment_id, "quality_score", quality["estimate"]
    )
    return Result(
        success=True,
        predicted_savings=context.draft.estimated_savings,
        **compare(snapshot.cost, cost_after),
        p95_before=snapshot.p95_latency_ms,
        p95_after=latency["estimate"],
        quality_before=snapshot.quality,
        quality_after=quality["estimate"],
        quality_lower_bound=quality["lower_bound"],
        requests_dropped=counters.requests_dropped - snapshot.requests_dropped,
    )


def _baseline_quality(change: InitialContext[Any]) -> float:
    baselines = [given.baseline_quality for given in change.validations if given.baseline_quality]
    if not baselines:
        raise StepError("no quality baseline was established, so the change could not be compared with it")
    return baselines[0]
