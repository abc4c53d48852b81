"""Idle shutdown: instances that serve no deployment are stopped, watched for a while, and terminated.

A stop is rolled back by a start. Terminated instances cannot be restored: the rollback launches new ones with the same
settings.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

from optiinfra.api.agents import JudgeAnswer, JudgeTask
from optiinfra.api.common import Wire
from optiinfra.api.customers import Deployment, Infrastructure
from optiinfra.api.parameters import IdleShutdownParameters
from optiinfra.api.recommendations import Result
from optiinfra.clouds.protocol import LaunchSettings
from optiinfra.domain.optimization import RESTORED
from optiinfra.domain.savings import compare, total
from optiinfra.kit.ids import new_id
from optiinfra.kit.tasks import gather_to_end
from optiinfra.orchestrator.optimizations.context import Detail, InitialContext, Snapshot, StepContext, StepError
from optiinfra.orchestrator.optimizations.judgement import ask, deadline_of, judge_until_conclusive
from optiinfra.orchestrator.optimizations.types.base import OptimizationType, Step, nothing_to_roll_back

_LATENCY_MARGIN = 1.1
"""Maximum latency increase (factor) of a deployment that already misses its objective."""


class DeploymentState(Wire):
    """A deployment before the change, which must not affect it; `p95_latency_ms` is None if it had no traffic."""

    deployment_id: str
    name: str
    replica_ids: list[str]
    requests_dropped: int
    p95_latency_ms: float | None


class IdleSnapshot(Snapshot):
    """`launch_settings` are the settings to launch each instance again, by instance id."""

    launch_settings: dict[str, LaunchSettings]
    deployments: list[DeploymentState]


InitialIdleContext = InitialContext[IdleShutdownParameters]
IdleContext = StepContext[IdleShutdownParameters, IdleSnapshot]


async def _take_snapshot(change: InitialIdleContext) -> IdleSnapshot:
    wanted = change.instance_ids
    estate = await change.refresh_inventory()
    _require_idle(await change.discover(), wanted)
    running = {one.instance_id: one for one in estate.instances if one.state == "running"}
    if ended := sorted(set(wanted) - running.keys()):
        raise StepError(f"{', '.join(ended)} no longer runs: analyze again")
    if spot := sorted(one for one in wanted if running[one].lifecycle == "spot"):
        raise StepError(f"{', '.join(spot)} is a spot instance, which could not be started again after a stop")
    return IdleSnapshot(
        cost=total(running[one].monthly_cost for one in wanted),
        launch_settings=await change.cloud.launch_settings(wanted),
        deployments=await gather_to_end(_state_of(change, one) for one in estate.vllm_deployments),
    )


async def _state_of(change: InitialIdleContext, deployment: Deployment) -> DeploymentState:
    measured = await change.measure(deployment.name)
    serving = _serving(deployment)
    return DeploymentState(
        deployment_id=deployment.deployment_id,
        name=deployment.name,
        replica_ids=serving,
        requests_dropped=measured.requests_dropped,
        p95_latency_ms=await change.recent_p95_ms(deployment.deployment_id, serving),
    )


async def snapshot_inventory(context: IdleContext) -> Detail:
    """Report the snapshot, which the executor takes before the first step."""
    return {"instance_ids": sorted(context.snapshot.launch_settings), "monthly_cost": context.snapshot.cost}


async def stop_instances(context: IdleContext) -> Detail:
    """Stop the instances, unless one of them now serves a deployment."""
    _require_idle(await context.discover(), context.instance_ids)
    await context.cloud.stop(context.change, context.instance_ids)
    return {"stopped": list(context.instance_ids)}


async def start_instances(context: IdleContext) -> Detail:
    """Start those of the instances that are stopped."""
    return {"started": await context.cloud.start(context.change, context.instance_ids)}


async def verify_unaffected(context: IdleContext) -> Detail:
    """Judge every deployment from now on, and check that the instances are not started again for a while."""
    deadline = deadline_of(context)
    estate = await _require_unaffected(context)
    judged = await gather_to_end(
        _judge_deployment(context, estate, before, deadline) for before in context.snapshot.deployments
    )
    await _watch_stopped(context)
    await _require_unaffected(context)
    return {"judged": [answer.reason for answer in judged if answer is not None]}


async def terminate_instances(context: IdleContext) -> Detail:
    """Terminate the instances, unless one was started again or a deployment is affected."""
    await _require_stopped(context)
    await _require_unaffected(context)
    await context.cloud.terminate(context.change, context.instance_ids)
    return {"terminated": list(context.instance_ids)}


async def launch_again(context: IdleContext) -> Detail:
    """Launch a new instance with the same settings for each that no longer exists."""
    listed = {one.instance_id: one.state for one in await context.cloud.instances()}
    gone = [one for one in context.instance_ids if listed.get(one, "terminated") == "terminated"]
    made = await gather_to_end(
        context.cloud.launch_like(_restored_key(context, one), context.snapshot.launch_settings[one], context.tags)
        for one in gone
    )
    return {"launched": dict(zip(gone, made, strict=True))}


async def _measure_result(context: IdleContext) -> Result:
    estate = await context.refresh_inventory()
    cost_before, affected = context.snapshot.cost, set(context.instance_ids)
    cost_after = estate.cost_of(affected)
    measured = await gather_to_end(context.measure(one.name) for one in context.snapshot.deployments)
    dropped = sum(
        after.requests_dropped - before.requests_dropped
        for after, before in zip(measured, context.snapshot.deployments, strict=True)
    )
    return Result(
        success=True,
        predicted_savings=context.draft.estimated_savings,
        **compare(cost_before, cost_after),
        requests_dropped=dropped,
    )


async def _is_restored(context: IdleContext) -> bool:
    """Whether each instance runs, or one in its place with the same launch settings."""
    running = {one.instance_id for one in await context.cloud.instances() if one.state == "running"}
    for instance_id, settings in context.snapshot.launch_settings.items():
        in_place = [instance_id] if instance_id in running else await _launched(context, instance_id)
        found = await context.cloud.launch_settings(in_place)
        if [settings] != list(found.values()) or not running.issuperset(in_place):
            return False
    return True


async def _launched(context: IdleContext, instance_id: str) -> list[str]:
    return await context.cloud.tagged_instances(_restored_key(context, instance_id))


async def _judge_deployment(
    context: IdleContext, estate: Infrastructure, before: DeploymentState, deadline: float
) -> JudgeAnswer | None:
    """Judge the latency of a deployment that has traffic, by all of its serving replicas; None if it has no traffic."""
    if before.p95_latency_ms is None:
        return None
    deployment = estate.deployment(before.deployment_id)
    objective = max(deployment.slo.p95_latency_ms, _LATENCY_MARGIN * before.p95_latency_ms)
    since: datetime = (await context.measure(before.name)).measured_at

    async def latency(look: int) -> JudgeAnswer:
        await context.measure(before.name)
        task = JudgeTask(
            task_id=new_id("task"),
            customer_id=context.customer_id,
            deployment_id=before.deployment_id,
            stage=before.name,
            since=since,
            replica_ids=_serving(deployment),
            slo_p95_latency_ms=objective,
            slo_quality=deployment.slo.quality,
            baseline_quality=0.0,
            look=look,
        )
        return await ask(context, "performance", task)

    return await judge_until_conclusive(latency, deadline)


async def _watch_stopped(context: IdleContext) -> None:
    """Check for the observation period that the instances stay stopped: an owner who needs one starts it again."""
    ends = time.monotonic() + context.platform.settings.idle_observation_seconds
    while True:
        await _require_stopped(context)
        if time.monotonic() >= ends:
            return
        await asyncio.sleep(context.platform.settings.idle_poll_seconds)


async def _require_stopped(context: IdleContext) -> None:
    """Raise StepError if one of the instances was started again; one that is already terminated is accepted."""
    states = {one.instance_id: one.state for one in await context.cloud.instances()}
    if started := [one for one in context.instance_ids if states.get(one) in ("pending", "running")]:
        raise StepError(f"{', '.join(started)} was started again by its owner")


async def _require_unaffected(context: IdleContext) -> Infrastructure:
    """The estate now; raises StepError if a deployment lost a replica or dropped requests since the snapshot."""
    estate = await context.discover()
    _require_idle(estate, context.instance_ids)
    for before in context.snapshot.deployments:
        try:
            deployment = estate.deployment(before.deployment_id)
        except KeyError:
            raise StepError(f"deployment {before.name} disappeared after the instances were stopped") from None
        if len(serving := _serving(deployment)) < len(before.replica_ids):
            change = f"{len(before.replica_ids)} to {len(serving)}"
            raise StepError(f"{before.name} went from {change} replicas since the instances were stopped")
        dropped = (await context.measure(before.name)).requests_dropped - before.requests_dropped
        if dropped > 0:
            raise StepError(f"{before.name} dropped {dropped} requests since the instances were stopped")
    return estate


def _require_idle(estate: Infrastructure, instance_ids: Sequence[str]) -> None:
    """Raise StepError if one of the instances hosts a replica that is not dead."""
    for deployment in estate.vllm_deployments:
        for engine in deployment.engines:
            if engine.state != "dead" and engine.instance_id in instance_ids:
                raise StepError(f"{engine.instance_id} serves {deployment.name}: it is not idle any more")


def _serving(deployment: Deployment) -> list[str]:
    """Ids of the replicas that are not dead and carry traffic."""
    alive = {engine.replica_id for engine in deployment.engines if engine.state != "dead"}
    return sorted(replica for replica, weight in deployment.weights.items() if weight > 0 and replica in alive)


def _restored_key(context: IdleContext, instance_id: str) -> str:
    return context.key(f"{RESTORED}:{instance_id}")


IDLE_SHUTDOWN = OptimizationType(
    name="idle_shutdown",
    parameters=IdleShutdownParameters,
    snapshot=IdleSnapshot,
    steps=(
        Step("snapshot_inventory", snapshot_inventory, nothing_to_roll_back),
        Step("stop_instances", stop_instances, start_instances),
        Step("verify_unaffected", verify_unaffected, nothing_to_roll_back),
        Step("terminate_instances", terminate_instances, launch_again),
    ),
    instance_ids=lambda parameters: parameters.instance_ids,
    take_snapshot=_take_snapshot,
    measure_result=_measure_result,
    is_restored=_is_restored,
)
