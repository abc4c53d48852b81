"""A rollout of new engine arguments: a canary on a new instance, then the originals are restarted one by one."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from optiinfra.orchestrator.optimizations.rollout.traffic import alive, deploy, replicas_on, retire, set_weights

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
        """Report the old and the new engine arguments. The executor takes the snapshot before the first step."""
        return {"engine_args": context.snapshot.deployment.engine_args, "new_engine_args": self.engine_args(context)}

    async def deploy_canary(self, context: RolloutContext) -> Detail:
        """Have one more replica, with the new arguments and a small share of the traffic."""
        return await self._while_canary_lasts(context, self._deploy_canary(context))

    async def remove_canary(self, context: RolloutContext) -> Detail:
        """Give the originals their traffic back, and remove the canary with its instance."""
        canary = await self._canary(context)
        weights = _original_weights(context)
        await set_weights(context, weights)
        await retire(context, canary)
        return {"weights": weights, "terminated": await context.cloud.cancel_and_terminate(_canary_key(context))}

    async def scale_to_half(self, context: RolloutContext) -> Detail:
        """Restart half of the originals with the new arguments, and give what has them half of the traffic."""
        return await self._while_canary_lasts(context, self._scale_to_half(context))

    async def roll_back_half(self, context: RolloutContext) -> Detail:
        """Restart that half with the old arguments, and give the canary its small share again."""
        first, _ = _halves(context)
        restarted = await self._restart_with_old_args(context, first)
        weights = shifted_weights(_originals(context), await self._canary(context), CANARY_SHARE)
        await set_weights(context, weights)
        return {"restarted": restarted, "weights": weights}

    async def validate(self, context: RolloutContext) -> Detail:
        """Judge the replicas that have the new arguments."""
        return await self._while_canary_lasts(context, self._judge(context))

    async def roll_out_fully(self, context: RolloutContext) -> Detail:
        """Restart the other half, and judge all replicas while the canary is still there."""
        return await self._while_canary_lasts(context, self._roll_out_fully(context))

    async def roll_back_rest(self, context: RolloutContext) -> Detail:
        """Restart the other half with the old arguments, and give the new ones half of the traffic."""
        first, second = _halves(context)
        restarted = await self._restart_with_old_args(context, second)
        weights = shifted_weights(second, [*first, *await self._canary(context)], 0.5)
        await set_weights(context, weights)
        return {"restarted": restarted, "weights": weights}

    async def retire_canary(self, context: RolloutContext) -> Detail:
        """Give the originals their own weights, and remove the canary: all of them have the new arguments."""
        return await self.remove_canary(context)

    async def restore_canary(self, context: RolloutContext) -> Detail:
        """Have a canary again, for the headroom that restarts need."""
        return await self._deploy_canary(context)

    async def measure_result(self, context: RolloutContext) -> Result:
        """Measure the result of the change."""
        made = await context.cloud.tagged_instances(_canary_key(context))
        return await snapshot.measure_result(context, made, context.details[self.judged_in])

    async def is_restored(self, context: RolloutContext) -> bool:
        """Whether replicas, their engine arguments and weights are as before, without the canary's instance."""
        before, deployment = context.snapshot.deployment, await context.deployment()
        serving = {engine.replica_id: engine.engine_args for engine in alive(deployment)}
        return (
            not await context.cloud.tagged_instances(_canary_key(context))
            and serving == dict.fromkeys(_originals(context), before.engine_args)
            and _carrying(deployment) == _carrying(before)
        )

    async def _deploy_canary(self, context: RolloutContext) -> Detail:
        like = context.snapshot.instances[0]
        tags = context.tags | {"Name": context.snapshot.deployment.name}
        instances = await context.cloud.ensure_instances(
            _canary_key(context), like.instance_type, 1, like.lifecycle, tags
        )
        replicas = await deploy(context, instances, self.engine_args(context))
        weights = shifted_weights(_originals(context), replicas, CANARY_SHARE)
        await set_weights(context, weights)
        return {"instance_ids": instances, "replica_ids": replicas, "weights": weights}

    async def _scale_to_half(self, context: RolloutContext) -> Detail:
        first, second = _halves(context)
        restarted = await self._restart(context, first, self.engine_args(context))
        weights = shifted_weights(second, [*first, *await self._canary(context)], 0.5)
        await set_weights(context, weights)
        return {"restarted": restarted, "weights": weights}

    async def _roll_out_fully(self, context: RolloutContext) -> Detail:
        _, second = _halves(context)
        restarted = await self._restart(context, second, self.engine_args(context))
        replicas = [*_originals(context), *await self._canary(context)]
        weights = shifted_weights([], replicas, 1.0)
        await set_weights(context, weights)
        return {"restarted": restarted, "weights": weights} | await judge(context, replicas)

    async def _judge(self, context: RolloutContext) -> Detail:
        wanted = self.engine_args(context)
        deployment = await context.deployment()
        return await judge(context, [one.replica_id for one in alive(deployment) if one.engine_args == wanted])

    async def _restart(
        self,
        context: RolloutContext,
        replica_ids: Sequence[str],
        engine_args: Mapping[str, Any],
        carrying: Callable[[Iterable[str]], list[str]] = sorted,
    ) -> list[str]:
        """Restart those of the replicas that have other arguments, one by one; their ids.

        Each is drained first: meanwhile those of the others that `carrying` chooses share the traffic evenly.
        """
        name, restarted = context.snapshot.deployment.name, []
        for replica_id in replica_ids:
            others = {one.replica_id: one.engine_args for one in alive(await context.deployment())}
            if others.pop(replica_id, None) == engine_args:
                continue
            if not others:
                raise StepError(f"{replica_id} is the only replica of {name}: a restart would leave none to answer")
            await set_weights(context, shifted_weights([], carrying(others), 1.0))
            payload = RestartReplica(deployment=name, replica_id=replica_id, engine_args=dict(engine_args))
            await context.command_once(f"{context.step}:restart:{replica_id}", "restart_replica", payload)
            restarted.append(replica_id)
        return restarted

    async def _restart_with_old_args(self, context: RolloutContext, replica_ids: Sequence[str]) -> list[str]:
        originals = set(_originals(context))

        def originals_first(others: Iterable[str]) -> list[str]:
            return sorted(originals.intersection(others)) or sorted(others)

        before = context.snapshot.deployment.engine_args
        return await self._restart(context, replica_ids, before, originals_first)

    async def _canary(self, context: RolloutContext) -> list[str]:
        """The canary's replica id in a list, which is empty where there is none."""
        return replicas_on(await context.deployment(), await context.cloud.tagged_instances(_canary_key(context)))

    async def _while_canary_lasts(self, context: RolloutContext, action: Coroutine[Any, Any, T]) -> T:
        if context.snapshot.instances[0].lifecycle == "spot":
            return await fail_on_interruption(context, _canary_key(context), action)
        return await action


def _originals(context: RolloutContext) -> list[str]:
    """Ids of the replicas that the deployment had, sorted."""
    return sorted(engine.replica_id for engine in alive(context.snapshot.deployment))


def _halves(context: RolloutContext) -> tuple[list[str], list[str]]:
    """The originals that are restarted first, and the others; a single one is among the others."""
    originals = _originals(context)
    return originals[: len(originals) // 2], originals[len(originals) // 2 :]


def _original_weights(context: RolloutContext) -> dict[str, float]:
    return {replica: weight for replica, weight in context.snapshot.deployment.weights.items() if weight > 0}


def _carrying(deployment: Deployment) -> dict[str, float]:
    return {replica: round(weight, 6) for replica, weight in deployment.weights.items() if weight > 0}


def _canary_key(context: RolloutContext) -> str:
    return context.key(CANARY)
