"""A rollout of new engine arguments on a fleet in memory: forward, backward, and at every point between."""

import asyncio
import itertools
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest

from optiinfra.api.common import Wire
from optiinfra.api.customers import Infrastructure, Replica
from optiinfra.api.parameters import EngineTuningParameters
from optiinfra.api.runtimes import CommandKind, DeployReplica, RestartReplica, RetireReplica, SetWeights
from optiinfra.clouds.protocol import CloudUnavailable
from optiinfra.domain.optimization import rollback_step
from optiinfra.orchestrator.optimizations.context import Detail, StepContext, StepError
from optiinfra.orchestrator.optimizations.rollout import new_engine_args
from optiinfra.orchestrator.optimizations.rollout.snapshot import DeploymentSnapshot
from optiinfra.orchestrator.optimizations.types.base import Step
from optiinfra.orchestrator.optimizations.types.engine_tuning import ENGINE_TUNING
from tests.unit.orchestrator.optimizations.fakes import FakeCloud, context, deployment, error_of, instance

OLD_ARGS, NEW_ARGS = {"max_num_seqs": 256}, {"max_num_seqs": 512}
CANARY_KEY = "opt_1:canary"


class Account(FakeCloud):
    """Makes the canary's instance, another one each time, and ends it."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    async def ensure_instances(self, key: str, *wanted: Any) -> list[str]:
        assert wanted[:3] == ("p4de.24xlarge", 1, "on-demand")
        if not self.made.get(key):
            self.made[key] = [f"i-canary-{next(self._numbers)}"]
        return self.made[key]


class Fleet:
    """A `Runtime` over replicas that it deploys, restarts and retires; a replica with traffic must be left alone.

    Like a runtime, it executes a command once per idempotency key. `states` has those of replicas that are not ready.
    """

    def __init__(self, replicas: int) -> None:
        self.engines = {f"old-{n}": (f"i-{n}", OLD_ARGS) for n in range(1, replicas + 1)}
        self.weights = dict.fromkeys(self.engines, 1 / replicas)
        self.states: dict[str, Literal["starting", "dead"]] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self.restarted: list[tuple[str, Any]] = []
        self.canary_shares: list[float] = []
        """The canary's share of the traffic during each restart."""

    async def execute(self, key: str, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        if key not in self._outputs:
            self._outputs[key] = self._execute(payload)
        return self._outputs[key]

    def die(self, replica_id: str) -> None:
        """The engine crashes; its instance goes on."""
        self.states[replica_id] = "dead"

    def lose_canary(self, cloud: FakeCloud) -> None:
        """The cloud ends the canary's instance, and its engine with it."""
        cloud.made.clear()
        for name in self.engines:
            if name.startswith("canary"):
                self.die(name)

    def _execute(self, payload: Wire) -> dict[str, Any]:
        if isinstance(payload, SetWeights):
            assert not [one for one in payload.weights if one in self.states], "traffic for a replica that is not ready"
            assert sum(payload.weights.values()) == pytest.approx(1.0)
            assert payload.weights.keys() <= self.engines.keys(), "traffic for a replica that does not exist"
            self.weights = payload.weights
        elif isinstance(payload, DeployReplica):
            name = f"canary-{next(self._numbers)}"
            self.engines[name] = (payload.instance_id, payload.engine_args or {})
            return {"replica_id": name}
        elif isinstance(payload, RestartReplica):
            assert self.weights.get(payload.replica_id, 0) == 0, f"{payload.replica_id} restarts under traffic"
            self.engines[payload.replica_id] = (self.engines[payload.replica_id][0], payload.engine_args)
            self.states.pop(payload.replica_id, None)
            self.restarted.append((payload.replica_id, payload.engine_args))
            self.canary_shares.append(sum(weight for name, weight in self.weights.items() if name.startswith("canary")))
        elif isinstance(payload, RetireReplica):
            assert self.weights.get(payload.replica_id, 0) == 0, f"{payload.replica_id} is retired under traffic"
            self.engines.pop(payload.replica_id, None)
        return {}

    async def discover(self, key: str) -> Infrastructure:
        return Infrastructure(status="discovered", instances=[], vllm_deployments=[self.describe()])

    def describe(self) -> Any:
        engines = [
            Replica(
                replica_id=name,
                instance_id=on,
                instance_type="p4de.24xlarge",
                state=self.states.get(name, "ready"),
                engine_args=dict(args),
            )
            for name, (on, args) in self.engines.items()
        ]
        return deployment(*engines, weights=dict(self.weights)).model_copy(update={"engine_args": OLD_ARGS})

    @property
    def new_share(self) -> float:
        """Share of the traffic on replicas with the new arguments."""
        return sum(weight for name, weight in self.weights.items() if self.engines[name][1] == NEW_ARGS)


def context_of(fleet: Fleet, cloud: FakeCloud) -> StepContext[EngineTuningParameters, DeploymentSnapshot]:
    instances = [instance(on) for on, _ in fleet.engines.values()]
    parameters = EngineTuningParameters(
        deployment="prod", engine_args=NEW_ARGS, source_instance_ids=[one.instance_id for one in instances]
    )
    before = DeploymentSnapshot(
        cost=40_000.0, deployment=fleet.describe(), instances=instances, requests_dropped=0, baseline_answers=[]
    )
    return context("engine_tuning", parameters, before, cloud, fleet, instance_ids=parameters.source_instance_ids)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The replicas that each judgement was about."""
    seen: list[Sequence[str]] = []

    async def judge(_context: Any, replica_ids: Sequence[str]) -> Detail:
        seen.append(sorted(replica_ids))
        return {}

    monkeypatch.setattr(new_engine_args, "judge", judge)
    return seen


async def roll_out(change: StepContext[Any, Any], fleet: Fleet, steps: int) -> list[float]:
    """Execute so many steps; the share of the traffic on the new arguments after each."""
    shares = []
    for step in ENGINE_TUNING.steps[:steps]:
        await step.execute(replace(change, step=step.name))
        shares.append(round(fleet.new_share, 6))
    return shares


async def roll_back(change: StepContext[Any, Any], steps: Sequence[Step[Any, Any]]) -> None:
    """Roll these steps back, the last one first."""
    for step in reversed(steps):
        await step.rollback(replace(change, step=rollback_step(step.name)))


async def outcomes(action: Awaitable[Any]) -> list[Any]:
    """What an action returns or raises, as the only item."""
    return list(await asyncio.gather(action, return_exceptions=True))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_rollout_of_all_steps_leaves_originals_with_new_arguments_and_their_weights(
    replicas: int, judged: list[Sequence[str]]
) -> None:
    fleet, cloud = Fleet(replicas), Account()
    change = context_of(fleet, cloud)
    originals = sorted(fleet.engines)

    shares = asyncio.run(roll_out(change, fleet, 7))

    assert shares == [0.0, 0.2, 0.2, 0.5, 0.5, 1.0, 1.0]
    assert {name: args for name, (_, args) in fleet.engines.items()} == dict.fromkeys(originals, NEW_ARGS)
    assert fleet.weights == dict.fromkeys(originals, 1 / replicas)
    assert sorted(name for name, _ in fleet.restarted) == originals
    assert cloud.made == {}
    half = originals[: replicas // 2]
    assert judged == [["canary-1"], sorted(["canary-1", *half]), sorted(["canary-1", *originals])]


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("steps", range(1, 8))
def test_rollback_after_any_step_restores_arguments_weights_and_instances(
    replicas: int, steps: int, judged: list[Sequence[str]]
) -> None:
    fleet, cloud = Fleet(replicas), Account()
    change = context_of(fleet, cloud)

    async def there_and_back() -> bool:
        await roll_out(change, fleet, steps)
        assert steps == 1 or not await ENGINE_TUNING.is_restored(change)
        await roll_back(change, ENGINE_TUNING.steps[:steps])
        return await ENGINE_TUNING.is_restored(change)

    assert asyncio.run(there_and_back())
    assert {args["max_num_seqs"] for _, args in fleet.engines.values()} == {256}
    assert fleet.new_share == 0.0
    assert cloud.made == {}


@pytest.mark.parametrize(("replicas", "share"), [(1, 1.0), (2, 0.0), (3, 0.0)])
def test_rollback_gives_the_canary_traffic_only_where_no_original_can_carry_it(
    replicas: int, share: float, judged: list[Sequence[str]]
) -> None:
    fleet = Fleet(replicas)
    change = context_of(fleet, Account())

    async def there_and_back() -> None:
        await roll_out(change, fleet, 6)
        fleet.canary_shares.clear()
        await roll_back(change, ENGINE_TUNING.steps[:6])

    asyncio.run(there_and_back())
    assert fleet.canary_shares == [share] * replicas


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("steps", range(2, 7))
@pytest.mark.parametrize("instance_too", [True, False])
def test_rollback_without_the_canary_restores_everything(
    replicas: int, steps: int, instance_too: bool, judged: list[Sequence[str]]
) -> None:
    fleet, cloud = Fleet(replicas), Account()
    change = context_of(fleet, cloud)

    async def there_and_back() -> bool:
        await roll_out(change, fleet, steps)
        if instance_too:
            fleet.lose_canary(cloud)
        else:
            fleet.die("canary-1")
        await roll_back(change, ENGINE_TUNING.steps[:steps])
        return await ENGINE_TUNING.is_restored(change)

    (restored,) = asyncio.run(outcomes(there_and_back()))
    assert restored is True
    assert sorted(fleet.engines) == sorted(f"old-{n}" for n in range(1, replicas + 1))
    assert cloud.made == {}


def test_rollback_with_a_dead_original_gives_its_traffic_to_the_others(judged: list[Sequence[str]]) -> None:
    fleet, cloud = Fleet(2), Account()
    change = context_of(fleet, cloud)

    async def there_and_back() -> bool:
        await roll_out(change, fleet, 4)
        fleet.die("old-1")
        await roll_back(change, ENGINE_TUNING.steps[:4])
        return await ENGINE_TUNING.is_restored(change)

    assert not asyncio.run(there_and_back()), "old-1 is dead: this is not as it was"
    assert fleet.weights == {"old-2": 1.0}
    assert sorted(fleet.engines) == ["old-1", "old-2"]
    assert cloud.made == {}


def test_rollback_of_retire_previous_that_kept_the_instance_deploys_a_canary_again(
    judged: list[Sequence[str]],
) -> None:
    fleet, cloud = Fleet(2), Account()
    change = context_of(fleet, cloud)

    async def there_and_back() -> bool:
        await roll_out(change, fleet, 6)
        cloud.failure = CloudUnavailable("TerminateInstances: no answer")
        await error_of(ENGINE_TUNING.step("retire_previous").execute(replace(change, step="retire_previous")))
        cloud.failure = None
        await roll_back(change, ENGINE_TUNING.steps)
        return await ENGINE_TUNING.is_restored(change)

    assert asyncio.run(there_and_back())
    assert cloud.made == {}


def test_step_repeated_while_an_engine_loads_waits_for_it(judged: list[Sequence[str]]) -> None:
    fleet = Fleet(2)
    change = replace(context_of(fleet, Account()), step="scale_to_50_percent")

    async def repeat() -> None:
        await roll_out(change, fleet, 3)
        # The command was sent before a crash: the engine has its arguments, and loads.
        fleet.engines["old-1"] = (fleet.engines["old-1"][0], NEW_ARGS)
        fleet.states["old-1"] = "starting"
        fleet.weights = {"old-2": 1.0}
        await ENGINE_TUNING.step("scale_to_50_percent").execute(change)

    asyncio.run(repeat())
    assert fleet.restarted == [("old-1", NEW_ARGS)]
    assert fleet.states == {}


def test_snapshot_configuration_with_incomplete_arguments_fails() -> None:
    fleet = Fleet(2)
    change = context_of(fleet, Account())
    parameters = change.parameters.model_copy(update={"engine_args": {"enable_prefix_caching": True}})
    step = ENGINE_TUNING.step("snapshot_configuration")
    seen = asyncio.run(error_of(step.execute(replace(change, parameters=parameters))))
    assert str(seen) == "the new engine arguments lack max_num_seqs"


def test_step_repeated_after_a_crash_restarts_nothing_twice(judged: list[Sequence[str]]) -> None:
    fleet, cloud = Fleet(4), Account()
    change = context_of(fleet, cloud)

    async def twice() -> None:
        await roll_out(change, fleet, 4)
        await ENGINE_TUNING.step("scale_to_50_percent").execute(change)

    asyncio.run(twice())
    assert fleet.restarted == [("old-1", NEW_ARGS), ("old-2", NEW_ARGS)]


def test_restart_of_the_only_replica_fails() -> None:
    fleet = Fleet(1)
    seen = asyncio.run(error_of(ENGINE_TUNING.step("full_rollout").execute(context_of(fleet, Account()))))
    assert isinstance(seen, StepError)
    assert str(seen) == "old-1 is the only replica of prod: a restart would leave none to answer"
    assert fleet.restarted == []
