"""A rollout of new engine arguments: a canary on a new instance, then the originals are restarted one by one."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from optiinfra.api.customers import Deployment
from optiinfra.api.recommendations import Result
from optiinfra.api.runtimes import RestartReplica
from optiinfra.domain.optimization import CANARY, CANARY_SHARE, shifted_weights
from optiinfra.orchestrator.optimizations.context import Detail, StepError
from optiinfra.orchestrator.optimizations.rollout import snapshot
from optiinfra.orchestrator.optimizations.rollout.interruptions import fail_on_interruption
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
class NewEngineArgs:
    """The stages of the rollout and their rollbacks.

    `engine_args` says which arguments a change asks for, `judged_in` names the step that judges all of the traffic.
    The canary gives the headroom for restarts: at every moment all but one of the originals serve beside it. During a
    rollback the canary gets traffic only if no original can serve. It runs on an instance like the originals'; if that
    is a spot instance, a stage fails when the cloud reclaims it.
    """

    engine_args: Callable[[RolloutContext], dict[str, Any]]
    judged_in: str

    async def snapshot_configuration(self, context: RolloutContext) -> Detail:
        """Report the old and the new engine arguments. The executor takes the snapshot before the first step.

        Raises StepError if the new arguments are not complete: an engine that restarts with them would use defaults for
        the missing ones. Also if the gateway does not report each replica's arguments.
        """
        before, wanted = context.snapshot.deployment, self.engine_args(context)
        if missing := sorted(before.engine_args.keys() - wanted.keys()):
            raise StepError(f"the new engine arguments lack {', '.join(missing)}")
        if any(engine.engine_args is None for engine in alive(before)):
            raise StepError(f"the gateway does not report the engine arguments of each replica of {before.name}")
        return {"engine_args": before.engine_args, "new_engine_args": wanted}

    async def deploy_canary(self, context: RolloutContext) -> Detail:
        """Add one replica, with the new arguments and a small share of the traffic."""
        return await _uninterrupted(context, self._deploy_canary(context))

    async def remove_canary(self, context: RolloutContext) -> Detail:
        """Give the originals their own weights, and remove the canary with its instance."""
        weights = await restore_weights(context, partial(_source_instance_ids, context))
        instances = await context.cloud.tagged_instances(_canary_key(context))
        # A canary that died with its instance is on none any more.
        before = {engine.replica_id for engine in context.snapshot.deployment.engines}
        canary = [
            engine.replica_id
            for engine in (await context.deployment()).engines
            if engine.instance_id in instances or (engine.state == "dead" and engine.replica_id not in before)
        ]
        await retire(context, canary)
        return {"weights": weights, "terminated": await context.cloud.cancel_and_terminate(_canary_key(context))}

    async def scale_to_half(self, context: RolloutContext) -> Detail:
        """Restart half of the originals with the new arguments, and give what has them half of the traffic."""
        return await _uninterrupted(context, self._scale_to_half(context))

    async def roll_back_half(self, context: RolloutContext) -> Detail:
        """Restart that half with the old arguments, and give the canary its small share again."""
        first, second = _halves(context)
        restarted = await self._restart_with_old_args(context, first)
        return {"restarted": restarted, "weights": await self._spread(context, [*first, *second], [], CANARY_SHARE)}

    async def validate(self, context: RolloutContext) -> Detail:
        """Judge the replicas that have the new arguments."""
        return await _uninterrupted(context, self._judge(context))

    async def roll_out_fully(self, context: RolloutContext) -> Detail:
        """Restart the other half, and judge all replicas while the canary is still there."""
        return await _uninterrupted(context, self._roll_out_fully(context))

    async def roll_back_rest(self, context: RolloutContext) -> Detail:
        """Restart the other half with the old arguments, and give the new ones half of the traffic."""
        first, second = _halves(context)
        restarted = await self._restart_with_old_args(context, second)
        return {"restarted": restarted, "weights": await self._spread(context, second, first, 0.5)}

    async def restore_canary(self, context: RolloutContext) -> Detail:
        """Recreate the canary, for the headroom that restarts need."""
        return await self._deploy_canary(context)

    async def measure_result(self, context: RolloutContext) -> Result:
        """Measure the result of the change."""
        made = await context.cloud.tagged_instances(_canary_key(context))
        return await snapshot.measure_result(context, made, context.details[self.judged_in])

    async def is_restored(self, context: RolloutContext) -> bool:
        """Whether replicas, their engine arguments and weights are as before, and the canary is gone."""
        before, deployment = context.snapshot.deployment, await context.deployment()
        engines = {engine.replica_id: engine.engine_args for engine in deployment.engines}
        return (
            not await context.cloud.tagged_instances(_canary_key(context))
            and engines == {engine.replica_id: before.engine_args for engine in before.engines}
            and _living_ids(deployment) == _living_ids(before)
            and _carrying(deployment) == _carrying(before)
        )

    async def _deploy_canary(self, context: RolloutContext) -> Detail:
        replicas = await self._ensure_canary(context, self.engine_args(context))
        return {"replica_ids": replicas, "weights": await self._spread(context, _sources(context), [], CANARY_SHARE)}

    async def _ensure_canary(self, context: RolloutContext, engine_args: dict[str, Any]) -> list[str]:
        """Ensure a ready replica on an instance of the canary's own; create what is missing."""
        like = context.snapshot.instances[0]
        tags = context.tags | {"Name": context.snapshot.deployment.name}
        instances = await context.cloud.ensure_instances(
            _canary_key(context), like.instance_type, 1, like.lifecycle, tags
        )
        engines = alive(await context.deployment())
        ready = [one.replica_id for one in engines if one.instance_id in instances and one.state == "ready"]
        return ready or await deploy(context, instances, engine_args)

    async def _scale_to_half(self, context: RolloutContext) -> Detail:
        first, second = _halves(context)
        restarted = await self._restart(context, first, self.engine_args(context))
        return {"restarted": restarted, "weights": await self._spread(context, second, first, 0.5)}

    async def _roll_out_fully(self, context: RolloutContext) -> Detail:
        _, second = _halves(context)
        restarted = await self._restart(context, second, self.engine_args(context))
        weights = await self._spread(context, [], _sources(context), 1.0)
        return {"restarted": restarted, "weights": weights} | await judge(context, sorted(weights))

    async def _spread(
        self, context: RolloutContext, old: Sequence[str], new: Sequence[str], new_share: float
    ) -> dict[str, float]:
        """Spread the traffic over the living ones of the old replicas, and over the new ones and the canary."""
        living, canary = set(_living_ids(await context.deployment())), await self._canary(context)
        old = [replica for replica in old if replica in living]
        new = [*(replica for replica in new if replica in living), *canary]
        if not old and not new:
            raise StepError(f"no replica of {context.snapshot.deployment.name} is left to take the traffic")
        weights = shifted_weights(old, new, new_share if old and new else float(bool(new)))
        await set_weights(context, weights)
        return weights

    async def _judge(self, context: RolloutContext) -> Detail:
        wanted = self.engine_args(context)
        deployment = await context.deployment()
        return await judge(context, [one.replica_id for one in alive(deployment) if one.engine_args == wanted])

    async def _restart(
        self,
        context: RolloutContext,
        replica_ids: Sequence[str],
        engine_args: dict[str, Any],
        carrying: Callable[[Iterable[str]], list[str]] = sorted,
    ) -> list[str]:
        """Restart those of the replicas that are not ready with these arguments, one by one; their ids.

        Each is drained first: meanwhile those of the others that `carrying` chooses share the traffic evenly. Dead
        replicas are skipped.
        """
        name, restarted = context.snapshot.deployment.name, []
        for replica_id in replica_ids:
            others = {one.replica_id: one for one in alive(await context.deployment())}
            found = others.pop(replica_id, None)
            if found is None or (found.engine_args == engine_args and found.state == "ready"):
                continue
            ready = [other.replica_id for other in others.values() if other.state == "ready"]
            if not ready:
                raise StepError(f"{replica_id} is the only replica of {name}: a restart would leave none to answer")
            await set_weights(context, shifted_weights([], carrying(ready), 1.0))
            payload = RestartReplica(deployment=name, replica_id=replica_id, engine_args=engine_args)
            await context.command_once(f"{context.step}:restart:{replica_id}", "restart_replica", payload)
            restarted.append(replica_id)
        return restarted

    async def _restart_with_old_args(self, context: RolloutContext, replica_ids: Sequence[str]) -> list[str]:
        """Restart with the snapshot's arguments; without another replica, a canary with them gives the headroom."""
        originals, before = set(_sources(context)), context.snapshot.deployment.engine_args

        def originals_first(others: Iterable[str]) -> list[str]:
            return sorted(originals.intersection(others)) or sorted(others)

        if len(alive(await context.deployment())) == 1:
            await self._ensure_canary(context, before)
        return await self._restart(context, replica_ids, before, originals_first)

    async def _canary(self, context: RolloutContext) -> list[str]:
        """The canary's replica id in a list, which is empty where there is none."""
        return replicas_on(await context.deployment(), await context.cloud.tagged_instances(_canary_key(context)))


async def _uninterrupted(context: RolloutContext, action: Coroutine[Any, Any, T]) -> T:
    return await fail_on_interruption(context, _canary_key(context), context.snapshot.instances[0].lifecycle, action)


async def _source_instance_ids(context: RolloutContext) -> list[str]:
    return [instance.instance_id for instance in context.snapshot.instances]


def _living_ids(deployment: Deployment) -> list[str]:
    """Ids of a deployment's living replicas, sorted."""
    return sorted(engine.replica_id for engine in alive(deployment))


def _sources(context: RolloutContext) -> list[str]:
    """Ids of the replicas that the deployment had."""
    return _living_ids(context.snapshot.deployment)


def _halves(context: RolloutContext) -> tuple[list[str], list[str]]:
    """The originals that are restarted first, and the others; a single one is among the others."""
    originals = _sources(context)
    return originals[: len(originals) // 2], originals[len(originals) // 2 :]


def _carrying(deployment: Deployment) -> dict[str, float]:
    return {replica: round(weight, 6) for replica, weight in deployment.weights.items() if weight > 0}


def _canary_key(context: RolloutContext) -> str:
    return context.key(CANARY)
