"""A cloud account and a customer's fleet that answer from memory, and a step context over them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from optiinfra.api.agents import Draft, Prediction
from optiinfra.api.common import Wire
from optiinfra.api.customers import Deployment, Infrastructure, Instance, Replica, Slo
from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.api.runtimes import CommandKind, RetireReplica, SetWeights
from optiinfra.clouds.protocol import Change, CloudInstance, LaunchSettings
from optiinfra.domain.recommendation import InstanceState, Lifecycle, RecommendationType
from optiinfra.orchestrator.optimizations.context import P, S, StepContext
from optiinfra.orchestrator.optimizations.rollout.snapshot import DeploymentSnapshot
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.runtimes.client import Runtime

TARGETS_KEY = "opt_1:targets"


def cloud_instance(
    instance_id: str, state: InstanceState = "running", lifecycle: Lifecycle = "on-demand"
) -> CloudInstance:
    return CloudInstance(instance_id, "aws", "us-east-1", "p4de.24xlarge", "on-demand", state, {})


@dataclass
class FakeCloud:
    """A `Cloud`. `made` has living instances by key, `reclaimed` those of the targets that the cloud reclaims."""

    made: dict[str, list[str]] = field(default_factory=dict)
    reclaimed: list[str] = field(default_factory=list)
    listed: list[CloudInstance] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    failure: Exception | None = None
    """Raised by every call while it is set."""

    def _called(self, name: str, what: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.calls.append((name, what))

    def _covered(self, change: Change, instance_ids: Sequence[str]) -> list[str]:
        assert all(change.covers(instance_id, {}) for instance_id in instance_ids), change
        return sorted(instance_ids)

    async def instances(self) -> list[CloudInstance]:
        self._called("instances", None)
        return self.listed

    async def ensure_instances(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        self._called("ensure_instances", (key, instance_type, count, lifecycle))
        return self.made.get(key, [])

    async def tagged_instances(self, key: str) -> list[str]:
        self._called("tagged_instances", key)
        return self.made.get(key, [])

    async def interrupted_instances(self, key: str) -> list[str]:
        return self.reclaimed if key == TARGETS_KEY else []

    async def cancel_and_terminate(self, key: str) -> list[str]:
        self._called("cancel_and_terminate", key)
        return self.made.pop(key, [])

    async def open_requests(self) -> dict[str, dict[str, str]]:
        return {}

    async def terminate(self, change: Change, instance_ids: Sequence[str]) -> None:
        self._called("terminate", self._covered(change, instance_ids))

    async def stop(self, change: Change, instance_ids: Sequence[str]) -> None:
        self._called("stop", self._covered(change, instance_ids))

    async def start(self, change: Change, instance_ids: Sequence[str]) -> list[str]:
        self._called("start", self._covered(change, instance_ids))
        return sorted(instance_ids)

    async def launch_settings(self, instance_ids: Sequence[str]) -> dict[str, LaunchSettings]:
        self._called("launch_settings", sorted(instance_ids))
        return {one: {"InstanceType": "g5.12xlarge"} for one in instance_ids}

    async def launch_like(self, key: str, settings: LaunchSettings, tags: Mapping[str, str]) -> str:
        self._called("launch_like", (key, settings))
        return f"i-like-{key.rpartition(':')[2]}"

    async def spot_quote(self, instance_type: str) -> float | None:
        return None


def replica(replica_id: str, instance_id: str, state: str = "ready") -> Replica:
    return Replica(
        replica_id=replica_id, instance_id=instance_id, instance_type="p4de.24xlarge", state=cast("Any", state)
    )


def deployment(*engines: Replica, weights: dict[str, float] | None = None) -> Deployment:
    """`prod`, with half of the traffic on each of old-1 and old-2 unless told otherwise."""
    return Deployment(
        deployment_id="dep_1",
        name="prod",
        model="meta-llama/Llama-3.1-70B-Instruct",
        provider="aws",
        region="us-east-1",
        replicas=2,
        engine_args={},
        weights=weights or {"old-1": 0.5, "old-2": 0.5},
        slo=Slo(p95_latency_ms=10_000, quality=0.9),
        interruptible=True,
        engines=list(engines),
    )


OLD = (replica("old-1", "i-old-1"), replica("old-2", "i-old-2"))


@dataclass
class FakeRuntime:
    """A `Runtime`. It discovers `deployments`, records `commands`, and replies to a command with `answer`."""

    deployments: list[Deployment] = field(default_factory=list)
    commands: list[tuple[str, Any]] = field(default_factory=list)
    answer: Callable[[str, CommandKind, Wire], Awaitable[dict[str, Any]]] | None = None

    async def execute(self, key: str, kind: CommandKind, payload: Wire) -> dict[str, Any]:
        if isinstance(payload, SetWeights):
            self.commands.append((kind, payload.weights))
        elif isinstance(payload, RetireReplica):
            self.commands.append((kind, payload.replica_id))
        elif self.answer is not None:
            return await self.answer(key, kind, payload)
        return {}

    async def discover(self, key: str) -> Infrastructure:
        return Infrastructure(status="discovered", instances=[], vllm_deployments=self.deployments)


async def never(*_command: Any) -> dict[str, Any]:
    """A runtime or cloud that does not answer."""
    await asyncio.Event().wait()
    return {}


def platform(**settings: float) -> Platform:
    """A platform with settings only; nothing else of it may be used."""
    defaults = {
        "spot_watch_seconds": 0.01,
        "spot_unobserved_seconds": 1.0,
        "stage_deadline_seconds": 60.0,
        "idle_observation_seconds": 0.01,
        "idle_poll_seconds": 0.005,
    }
    chosen = defaults | settings
    return cast("Platform", SimpleNamespace(settings=SimpleNamespace(**chosen)))


def context(
    kind: RecommendationType,
    parameters: P,
    snapshot: S,
    cloud: FakeCloud,
    runtime: Runtime,
    *,
    instance_ids: Sequence[str],
    deployment_id: str | None = "dep_1",
) -> StepContext[P, S]:
    """A step of the optimization opt_1 of customer cust_1."""
    return StepContext(
        platform=platform(),
        optimization_id="opt_1",
        recommendation_id="rec_1",
        customer_id="cust_1",
        step="this_step",
        draft=draft(kind, parameters, deployment_id),
        validations=[],
        parameters=parameters,
        instance_ids=instance_ids,
        account_id="acct_1",
        cloud=cloud,
        runtime=runtime,
        snapshot=snapshot,
        details={},
    )


def spot_context(cloud: FakeCloud, runtime: FakeRuntime) -> StepContext[SpotMigrationParameters, DeploymentSnapshot]:
    """A spot migration off i-old-1 and i-old-2, each with half of the traffic before."""
    parameters = SpotMigrationParameters(
        deployment="prod",
        provider="aws",
        region="us-east-1",
        instance_type="p4de.24xlarge",
        count=2,
        source_instance_ids=["i-old-1", "i-old-2"],
        spot_price=14.0,
        ondemand_price=27.0,
        interruptions_per_month=0.1,
    )
    snapshot = DeploymentSnapshot(
        cost=40_000.0,
        p95_latency_ms=5_000.0,
        quality=0.95,
        deployment=deployment(*OLD),
        instances=[instance("i-old-1"), instance("i-old-2")],
        requests_dropped=0,
        baseline_answers=[],
    )
    return context("spot_migration", parameters, snapshot, cloud, runtime, instance_ids=parameters.source_instance_ids)


def instance(instance_id: str, cost: float = 20_000.0) -> Instance:
    """A running on-demand instance as the inventory shows it."""
    return Instance(
        instance_id=instance_id,
        provider="aws",
        region="us-east-1",
        instance_type="p4de.24xlarge",
        lifecycle="on-demand",
        gpu_type=None,
        gpu_count=8,
        monthly_cost=cost,
        state="running",
    )


def draft(kind: RecommendationType, parameters: Wire, deployment_id: str | None) -> Draft:
    """What was recommended."""
    return Draft(
        type=kind,
        title="x",
        explanation="x",
        risk_level="low",
        confidence=0.9,
        estimated_savings=18_000.0,
        predicted=Prediction(monthly_cost=22_000.0, p95_latency_ms=None, quality_score=None),
        affected_resources=["i-old-1", "i-old-2"],
        deployment_id=deployment_id,
        parameters=parameters.model_dump(mode="json"),
        modelled={},
        features=[],
        similar_outcomes=[],
    )


async def error_of(action: Awaitable[Any]) -> BaseException:
    """What an action raises."""
    raised: object
    (raised,) = await asyncio.gather(action, return_exceptions=True)
    assert isinstance(raised, BaseException), f"it returned {raised}"
    return raised
