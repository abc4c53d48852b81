"""Replacing a deployment's replicas by ones on new instances, a share of the traffic at a time, and going back.

Every action may be repeated: it looks for what it made before it makes anything, and what it undoes may be gone.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from optiinfra.api.customers import Deployment, Replica
from optiinfra.api.runtimes import DeployReplica, RetireReplica, SetWeights
from optiinfra.clouds.protocol import CUSTOMER_TAG
from optiinfra.domain.optimization import CANARY_SHARE, shifted_weights
from optiinfra.orchestrator.optimizations.interruption import refuse_interrupted, unless_interrupted
from optiinfra.orchestrator.optimizations.run import Run, StepError
from optiinfra.orchestrator.optimizations.stage import judge

T = TypeVar("T")

Detail = dict[str, Any]
Work = Callable[[Run], Coroutine[Any, Any, Detail]]


@dataclass(frozen=True, slots=True)
class Action:
    """What a step does and how it is undone. Both return what is worth showing of it."""

    do: Work
    undo: Work


def on_spot(do: Work) -> Work:
    """What relies on the instances of `create_targets`: it fails as soon as the cloud takes one of them back."""

    async def watched(run: Run) -> Detail:
        return await unless_interrupted(run, _targets_key(run), do(run))

    return watched


async def create_targets(run: Run) -> Detail:
    """Have as many spot instances as the deployment has replicas."""
    wanted = run.parameters
    instances = await run.cloud.ensure_instances(
        _targets_key(run), wanted.instance_type, wanted.count, "spot", _tags(run)
    )
    if len(instances) != wanted.count:
        raise StepError(f"asked for {wanted.count} {wanted.instance_type}, the cloud runs {len(instances)}")
    return {"instance_ids": instances}


async def remove_targets(run: Run) -> Detail:
    """Terminate what `create_targets` made, and take back what it asked for in vain."""
    return {"terminated": await run.cloud.cancel_and_terminate(_targets_key(run))}


async def deploy_canary(run: Run) -> Detail:
    """Start one replica on a new instance and give it a small share of the traffic."""
    return await _shift(run, count=1, share=CANARY_SHARE)


async def scale_to_half(run: Run) -> Detail:
    """Have half the replicas on new instances, with half the traffic."""
    return await _shift(run, count=_half(run), share=0.5)


async def migrate_fully(run: Run) -> Detail:
    """Have all replicas on new instances with all the traffic, and judge them before anything old goes."""
    shifted = await _shift(run, count=run.parameters.count, share=1.0)
    return shifted | await judge(run, shifted["replica_ids"])


async def validate_canary(run: Run) -> Detail:
    """Judge the canary."""
    return await judge(run, await _replicas_on(run, await run.cloud.tagged(_targets_key(run))))


async def validate_half(run: Run) -> Detail:
    """Judge the new half."""
    return await judge(run, await _replicas_on(run, await run.cloud.tagged(_targets_key(run))))


async def terminate_sources(run: Run) -> Detail:
    """Drain the old replicas, take them out, and terminate the instances they ran on."""
    await refuse_interrupted(run, _targets_key(run))  # the last moment when everything can still go back
    sources = run.parameters.source_instance_ids
    replicas = sorted(one.replica_id for one in (await run.deployment()).engines if one.instance_id in sources)
    await _retire(run, replicas)  # dead ones, too
    await run.cloud.terminate(run.parameters.source_instance_ids)
    return {"retired": replicas, "terminated": run.parameters.source_instance_ids}


async def restore_sources(run: Run) -> Detail:
    """Have a replica on each original instance that still runs, and on a new one like it for each that does not.

    Then give them back the traffic.
    """
    sources = run.parameters.source_instance_ids
    running = [i.instance_id for i in await run.cloud.instances() if i.instance_id in sources and i.state == "running"]
    serving = {engine.instance_id for engine in _alive(await run.deployment())}
    made = await run.cloud.ensure_instances(
        _restored_key(run),
        run.snapshot.instances[0].instance_type,
        len(sources) - len(running),
        run.snapshot.instances[0].lifecycle,
        _tags(run),
    )
    # Those that were made are deployed again after a crash: the order waits until they are ready.
    bare = [instance for instance in running if instance not in serving]
    await _together(_deploy(run, instance) for instance in [*bare, *made])
    return {"instance_ids": [*running, *made], "weights": await _give_back_traffic(run)}


async def withdraw_canary(run: Run) -> Detail:
    """Take the traffic off the new replicas, and the canary away."""
    return await _withdraw(run, 0, 1)


async def withdraw_half(run: Run) -> Detail:
    """Take the traffic off the new replicas, and those that made up the half away."""
    return await _withdraw(run, 1, _half(run))


async def withdraw_all(run: Run) -> Detail:
    """Take the traffic off the new replicas, and the last of them away."""
    return await _withdraw(run, _half(run), run.parameters.count)


async def nothing_to_undo(_run: Run) -> Detail:
    """A judgement changes nothing."""
    return {}


STEP_ACTIONS: dict[str, Action] = {
    "create_spot_instances": Action(on_spot(create_targets), remove_targets),
    "deploy_canary": Action(on_spot(deploy_canary), withdraw_canary),
    "validate_canary": Action(on_spot(validate_canary), nothing_to_undo),
    "scale_to_50_percent": Action(on_spot(scale_to_half), withdraw_half),
    "validate_50_percent": Action(on_spot(validate_half), nothing_to_undo),
    "full_migration": Action(on_spot(migrate_fully), withdraw_all),
    "terminate_ondemand": Action(terminate_sources, restore_sources),
}


async def _shift(run: Run, count: int, share: float) -> Detail:
    instances = (await run.cloud.tagged(_targets_key(run)))[:count]
    if len(instances) < count:
        raise StepError(f"{count} new instances are needed, the cloud runs {len(instances)}")
    replicas = await _together(_deploy(run, instance) for instance in instances)
    weights = shifted_weights(await _originals(run), replicas, share)
    await _set_weights(run, weights)
    return {"instance_ids": instances, "replica_ids": replicas, "weights": weights}


async def _withdraw(run: Run, first: int, last: int) -> Detail:
    weights = await _give_back_traffic(run)
    instances = (await run.cloud.tagged(_targets_key(run)))[first:last]
    # What died with its instance is nobody's any more: whichever step is undone first takes it away.
    before = {engine.replica_id for engine in run.snapshot.deployment.engines}
    replicas = sorted(
        engine.replica_id
        for engine in (await run.deployment()).engines
        if engine.instance_id in instances or (engine.state == "dead" and engine.replica_id not in before)
    )
    await _retire(run, replicas)
    return {"weights": weights, "retired": replicas}


async def _give_back_traffic(run: Run) -> dict[str, float]:
    """The weights of the snapshot; a replica that had to be made anew takes the weight of one that is gone."""
    before = run.snapshot.deployment.weights
    carrying = {replica: weight for replica, weight in before.items() if weight > 0}
    if carrying.keys() <= {engine.replica_id for engine in _alive(await run.deployment())}:
        # Without asking the cloud, which may be away just now, while new instances are about to end.
        await _set_weights(run, carrying)
        return carrying
    originals = await _originals(run)
    if not originals:
        raise StepError(f"none of the original replicas of {run.parameters.deployment} is left to take the traffic")
    spare = sorted(weight for replica, weight in before.items() if replica not in originals)
    shares = {replica: before[replica] if replica in before else (spare or [0.0]).pop() for replica in originals}
    # One that died meanwhile leaves its share to the others.
    whole = sum(shares.values())
    weights = {replica: share / whole if whole else 1 / len(shares) for replica, share in shares.items()}
    await _set_weights(run, weights)
    return weights


async def _deploy(run: Run, instance_id: str) -> str:
    payload = DeployReplica(
        deployment=run.parameters.deployment,
        instance_id=instance_id,
        engine_args=run.snapshot.deployment.engine_args,
    )
    output = await run.order(f"deploy:{instance_id}", "deploy_replica", payload)
    return str(output["replica_id"])


async def _set_weights(run: Run, weights: dict[str, float]) -> None:
    payload = SetWeights(deployment=run.parameters.deployment, weights=weights)
    await run.order_again("set_weights", payload)


async def _retire(run: Run, replica_ids: Sequence[str]) -> None:
    await _together(
        run.order_again("retire_replica", RetireReplica(deployment=run.parameters.deployment, replica_id=replica))
        for replica in replica_ids
    )


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of it side by side; where one fails the others come to their end first, for whoever undoes it to see."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]


async def _originals(run: Run) -> list[str]:
    """Replicas on the instances that the deployment had, or that were made in their place."""
    restored = await run.cloud.tagged(_restored_key(run))
    return await _replicas_on(run, [*run.parameters.source_instance_ids, *restored])


async def _replicas_on(run: Run, instance_ids: Sequence[str]) -> list[str]:
    engines = _alive(await run.deployment())
    return sorted(engine.replica_id for engine in engines if engine.instance_id in instance_ids)


def _alive(deployment: Deployment) -> list[Replica]:
    return [engine for engine in deployment.engines if engine.state != "dead"]


def _half(run: Run) -> int:
    return math.ceil(run.parameters.count / 2)


def _targets_key(run: Run) -> str:
    return f"{run.optimization_id}:targets"


def _restored_key(run: Run) -> str:
    return f"{run.optimization_id}:restored"


def _tags(run: Run) -> dict[str, str]:
    return {
        "Name": run.parameters.deployment,
        CUSTOMER_TAG: run.customer_id,
        "optiinfra:deployment": run.parameters.deployment,
    }


async def is_restored(run: Run) -> bool:
    """Whether everything that this optimization changed is as it was; ids may differ."""
    before, deployment = run.snapshot.deployment, await run.deployment()
    instances = {instance.instance_id: instance for instance in await run.cloud.instances()}
    originals = [*run.parameters.source_instance_ids, *await run.cloud.tagged(_restored_key(run))]
    running = [instances[i] for i in originals if i in instances and instances[i].state == "running"]
    kinds = sorted((i.provider, i.region, i.instance_type, i.lifecycle) for i in running)
    return (
        not await run.cloud.tagged(_targets_key(run))
        and kinds == sorted((i.provider, i.region, i.instance_type, i.lifecycle) for i in run.snapshot.instances)
        and {engine.instance_id for engine in _alive(deployment)} == {instance.instance_id for instance in running}
        and _shares(deployment) == _shares(before)
        and deployment.engine_args == before.engine_args
    )


def _shares(deployment: Deployment) -> list[float]:
    return sorted(round(weight, 6) for weight in deployment.weights.values() if weight > 0)
