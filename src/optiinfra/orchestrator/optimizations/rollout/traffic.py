"""Replicas of a deployment and their shares of its traffic, changed through the customer's runtime."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from optiinfra.api.customers import Deployment, Replica
from optiinfra.api.runtimes import DeployReplica, RetireReplica, SetWeights
from optiinfra.domain.optimization import is_rollback
from optiinfra.kit.tasks import gather_to_end
from optiinfra.orchestrator.optimizations.context import StepError
from optiinfra.orchestrator.optimizations.rollout.snapshot import RolloutContext


async def deploy(
    context: RolloutContext, instance_ids: Iterable[str], engine_args: dict[str, Any] | None = None
) -> list[str]:
    """Ensure a replica on each of these instances, with the snapshot's engine arguments or others; return their ids."""
    name = context.snapshot.deployment.name
    # A rollback deploys again what an earlier step deployed and another one removed.
    scope = f"{context.step}:deploy" if is_rollback(context.step) else "deploy"
    wanted = context.snapshot.deployment.engine_args if engine_args is None else engine_args

    async def one(instance_id: str) -> str:
        payload = DeployReplica(deployment=name, instance_id=instance_id, engine_args=wanted)
        output = await context.command_once(f"{scope}:{instance_id}", "deploy_replica", payload)
        return str(output["replica_id"])

    return await gather_to_end(one(instance_id) for instance_id in instance_ids)


async def set_weights(context: RolloutContext, weights: Mapping[str, float]) -> None:
    """Spread the deployment's traffic."""
    payload = SetWeights(deployment=context.snapshot.deployment.name, weights=dict(weights))
    await context.command("set_weights", payload)


async def retire(context: RolloutContext, replica_ids: Iterable[str]) -> None:
    """Drain these replicas, which carry no traffic any more, and remove them."""
    name = context.snapshot.deployment.name
    await gather_to_end(
        context.command("retire_replica", RetireReplica(deployment=name, replica_id=replica)) for replica in replica_ids
    )


async def restore_weights(
    context: RolloutContext, original_instance_ids: Callable[[], Awaitable[Collection[str]]]
) -> dict[str, float]:
    """Set the snapshot's weights; a recreated replica gets the weight of the one it replaces.

    `original_instance_ids` asks the cloud for the originals' instances and those created in their place. It is called
    only if an original replica is missing, because the cloud may be unavailable while the new instances are being
    reclaimed.
    """
    before = context.snapshot.deployment.weights
    carrying = {replica: weight for replica, weight in before.items() if weight > 0}
    if carrying.keys() <= {engine.replica_id for engine in alive(await context.deployment())}:
        await set_weights(context, carrying)
        return carrying
    instances = await original_instance_ids()
    originals = replicas_on(await context.deployment(), instances)
    if not originals:
        name = context.snapshot.deployment.name
        raise StepError(f"none of the original replicas of {name} is left to take the traffic")
    spare = sorted(weight for replica, weight in before.items() if replica not in originals)
    shares = {replica: before[replica] if replica in before else (spare or [0.0]).pop() for replica in originals}
    # The share of a replica that died meanwhile goes to the others.
    whole = sum(shares.values())
    weights = {replica: share / whole if whole else 1 / len(shares) for replica, share in shares.items()}
    await set_weights(context, weights)
    return weights


def alive(deployment: Deployment) -> list[Replica]:
    """The deployment's replicas that are not dead."""
    return [engine for engine in deployment.engines if engine.state != "dead"]


def replicas_on(deployment: Deployment, instance_ids: Collection[str]) -> list[str]:
    """Ids of the replicas on these instances that are not dead, sorted."""
    return sorted(engine.replica_id for engine in alive(deployment) if engine.instance_id in instance_ids)
