"""A rollout onto new instances, which replace those that the deployment runs on."""

import math
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from optiinfra.api.customers import Deployment, Instance
from optiinfra.api.recommendations import Result
from optiinfra.clouds.protocol import CloudInstance
from optiinfra.domain.optimization import CANARY_SHARE, RESTORED, TARGETS, shifted_weights
from optiinfra.domain.recommendation import Lifecycle
from optiinfra.orchestrator.optimizations.context import Detail, StepError
from optiinfra.orchestrator.optimizations.rollout import snapshot
from optiinfra.orchestrator.optimizations.rollout.interruptions import fail_on_interruption, require_uninterrupted
from optiinfra.orchestrator.optimizations.rollout.judgement import judge
from optiinfra.orchestrator.optimizations.rollout.snapshot import RolloutContext
from optiinfra.orchestrator.optimizations.rollout.traffic import (
    alive,
    deploy,
    replicas_on,
    restore_weights,
    retire,
    set_weights,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Targets:
    """The instances that a deployment moves to: `count` of one type."""

    instance_type: str
    count: int
    lifecycle: Lifecycle

    @property
    def half(self) -> int:
        """How many carry half of the traffic."""
        return math.ceil(self.count / 2)


@dataclass(frozen=True, slots=True)
class NewInstances:
    """The stages of the rollout and their rollbacks.

    `targets` says what a change asks for, `judged_in` names the step that judges all of the traffic.
    While spot instances are relied on, a stage fails as soon as the cloud reclaims one of them.
    """

    targets: Callable[[RolloutContext], Targets]
    judged_in: str

    async def create_targets(self, context: RolloutContext) -> Detail:
        """Create the new instances, with no replica on them yet."""
        return await self._uninterrupted(context, self._create(context))

    async def remove_targets(self, context: RolloutContext) -> Detail:
        """Terminate the new instances, and cancel unfulfilled spot requests."""
        return {"terminated": await context.cloud.cancel_and_terminate(_targets_key(context))}

    async def deploy_canary(self, context: RolloutContext) -> Detail:
        """Start one replica on a new instance and give it a small share of the traffic."""
        return await self._uninterrupted(context, self._shift(context, 1, CANARY_SHARE))

    async def remove_canary(self, context: RolloutContext) -> Detail:
        """Give the traffic back and remove the canary."""
        return await self._remove_replicas(context, 0, 1)

    async def scale_to_half(self, context: RolloutContext) -> Detail:
        """Deploy half the replicas on new instances, and send them half the traffic."""
        return await self._uninterrupted(context, self._shift(context, self.targets(context).half, 0.5))

    async def remove_half(self, context: RolloutContext) -> Detail:
        """Give the traffic back and remove the replicas that made up the half."""
        return await self._remove_replicas(context, 1, self.targets(context).half)

    async def validate(self, context: RolloutContext) -> Detail:
        """Judge the replicas on new instances."""
        return await self._uninterrupted(context, self._judge_targets(context))

    async def shift_fully(self, context: RolloutContext) -> Detail:
        """Move all replicas and all traffic to new instances, and judge them before old replicas are removed."""
        return await self._uninterrupted(context, self._shift_fully(context))

    async def remove_rest(self, context: RolloutContext) -> Detail:
        """Give the traffic back and remove the last of the new replicas."""
        targets = self.targets(context)
        return await self._remove_replicas(context, targets.half, targets.count)

    async def retire_sources(self, context: RolloutContext) -> Detail:
        """Drain and remove the old replicas, and terminate the instances they ran on."""
        await require_uninterrupted(context, _targets_key(context))  # last check before old instances are terminated
        sources = _source_ids(context)
        # Includes dead replicas.
        replicas = sorted(one.replica_id for one in (await context.deployment()).engines if one.instance_id in sources)
        await retire(context, replicas)
        await context.cloud.terminate(context.change, sources)
        return {"retired": replicas, "terminated": sources}

    async def restore_sources(self, context: RolloutContext) -> Detail:
        """Ensure a replica on each original instance that runs, and on a new one like it for each that does not.

        Then give the traffic back.
        """
        sources, like = _source_ids(context), context.snapshot.instances[0]
        listed = await context.cloud.instances()
        running = [one.instance_id for one in listed if one.instance_id in sources and one.state == "running"]
        serving = {engine.instance_id for engine in alive(await context.deployment())}
        made = await context.cloud.ensure_instances(
            _restored_key(context), like.instance_type, len(sources) - len(running), like.lifecycle, _tags(context)
        )
        # Those that were made are deployed again after a crash: the command waits until they are ready.
        without_replica = [instance for instance in running if instance not in serving]
        await deploy(context, [*without_replica, *made])
        weights = await restore_weights(context, lambda: _original_instances(context))
        return {"instance_ids": [*running, *made], "weights": weights}

    async def measure_result(self, context: RolloutContext) -> Result:
        """Measure the result of the change."""
        made = await context.cloud.tagged_instances(_targets_key(context))
        return await snapshot.measure_result(context, made, context.details[self.judged_in])

    async def is_restored(self, context: RolloutContext) -> bool:
        """Whether instances, replicas, shares of the traffic and engine arguments are as before; ids may differ."""
        before, deployment = context.snapshot.deployment, await context.deployment()
        instances = {instance.instance_id: instance for instance in await context.cloud.instances()}
        originals = await _original_instances(context)
        running = [instances[i] for i in originals if i in instances and instances[i].state == "running"]
        return (
            not await context.cloud.tagged_instances(_targets_key(context))
            and _kinds(running) == _kinds(context.snapshot.instances)
            and {engine.instance_id for engine in alive(deployment)} == {instance.instance_id for instance in running}
            and _shares(deployment) == _shares(before)
            and deployment.engine_args == before.engine_args
        )

    async def _uninterrupted(self, context: RolloutContext, action: Coroutine[Any, Any, T]) -> T:
        return await fail_on_interruption(context, _targets_key(context), self.targets(context).lifecycle, action)

    async def _create(self, context: RolloutContext) -> Detail:
        wanted = self.targets(context)
        instances = await context.cloud.ensure_instances(
            _targets_key(context), wanted.instance_type, wanted.count, wanted.lifecycle, _tags(context)
        )
        if len(instances) != wanted.count:
            raise StepError(f"asked for {wanted.count} {wanted.instance_type}, the cloud runs {len(instances)}")
        return {"instance_ids": instances}

    async def _shift(self, context: RolloutContext, count: int, share: float) -> Detail:
        instances = (await context.cloud.tagged_instances(_targets_key(context)))[:count]
        if len(instances) < count:
            raise StepError(f"{count} new instances are needed, the cloud runs {len(instances)}")
        replicas = await deploy(context, instances)
        deployment = await context.deployment()
        if dead := sorted(set(replicas) - set(replicas_on(deployment, instances))):
            raise StepError(f"{', '.join(dead)}, which an earlier stage deployed, is dead")
        originals = replicas_on(deployment, _source_ids(context))
        weights = shifted_weights(originals, replicas, share)
        await set_weights(context, weights)
        return {"instance_ids": instances, "replica_ids": replicas, "weights": weights}

    async def _shift_fully(self, context: RolloutContext) -> Detail:
        shifted = await self._shift(context, self.targets(context).count, 1.0)
        return shifted | await judge(context, shifted["replica_ids"])

    async def _judge_targets(self, context: RolloutContext) -> Detail:
        instances = await context.cloud.tagged_instances(_targets_key(context))
        return await judge(context, replicas_on(await context.deployment(), instances))

    async def _remove_replicas(self, context: RolloutContext, first: int, last: int) -> Detail:
        """Give the traffic back, then remove the replicas on the targets of these numbers."""
        weights = await restore_weights(context, lambda: _original_instances(context))
        instances = (await context.cloud.tagged_instances(_targets_key(context)))[first:last]
        # A replica that died with its instance is no longer on any target: the first rollback step removes it.
        before = {engine.replica_id for engine in context.snapshot.deployment.engines}
        replicas = sorted(
            engine.replica_id
            for engine in (await context.deployment()).engines
            if engine.instance_id in instances or (engine.state == "dead" and engine.replica_id not in before)
        )
        await retire(context, replicas)
        return {"weights": weights, "retired": replicas}


def _source_ids(context: RolloutContext) -> list[str]:
    return [instance.instance_id for instance in context.snapshot.instances]


async def _original_instances(context: RolloutContext) -> Collection[str]:
    """Ids of the instances that the deployment had, and of those created in their place."""
    return [*_source_ids(context), *await context.cloud.tagged_instances(_restored_key(context))]


def _targets_key(context: RolloutContext) -> str:
    return context.key(TARGETS)


def _restored_key(context: RolloutContext) -> str:
    return context.key(RESTORED)


def _tags(context: RolloutContext) -> dict[str, str]:
    name = context.snapshot.deployment.name
    return context.tags | {"Name": name, "optiinfra:deployment": name}


def _kinds(instances: Iterable[Instance | CloudInstance]) -> list[tuple[str, ...]]:
    return sorted((one.provider, one.region, one.instance_type, one.lifecycle) for one in instances)


def _shares(deployment: Deployment) -> list[float]:
    return sorted(round(weight, 6) for weight in deployment.weights.values() if weight > 0)
