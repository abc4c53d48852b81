"""Stages of a rollout onto new instances, and their rollbacks."""

import asyncio
from typing import Any

import pytest

from optiinfra.clouds.protocol import CloudUnavailable
from optiinfra.domain.optimization import STEPS
from optiinfra.orchestrator.optimizations.context import StepError
from optiinfra.orchestrator.optimizations.types.spot_migration import SPOT_MIGRATION
from tests.unit.orchestrator.optimizations.fakes import (
    OLD,
    TARGETS_KEY,
    FakeCloud,
    FakeRuntime,
    deployment,
    error_of,
    never,
    replica,
    spot_context,
)


def execute(step: str, cloud: FakeCloud, runtime: FakeRuntime) -> Any:
    return SPOT_MIGRATION.step(step).execute(spot_context(cloud, runtime))


def roll_back(step: str, cloud: FakeCloud, runtime: FakeRuntime) -> Any:
    return SPOT_MIGRATION.step(step).rollback(spot_context(cloud, runtime))


@pytest.mark.parametrize("step", STEPS["spot_migration"])
def test_step_with_interrupted_target_fails_and_changes_nothing(step: str) -> None:
    runtime = FakeRuntime([deployment(*OLD, replica("new-1", "i-new-1"))], answer=never)
    cloud = FakeCloud(made={TARGETS_KEY: ["i-new-1", "i-new-2"]}, reclaimed=["i-new-1"])
    if step == "create_spot_instances":
        cloud.ensure_instances = never  # type: ignore[method-assign,assignment]

    seen = asyncio.run(error_of(asyncio.wait_for(execute(step, cloud, runtime), 2)))

    assert isinstance(seen, StepError)
    assert "reclaims spot instances that this change relies on: i-new-1" in str(seen)
    assert runtime.commands == []
    assert "terminate" not in [name for name, _ in cloud.calls]


def test_rollback_of_half_removes_replica_that_died_with_its_instance() -> None:
    runtime = FakeRuntime([deployment(*OLD, replica("new-1", "i-new-1", "dead"), replica("new-2", "i-new-2"))])
    asyncio.run(roll_back("scale_to_50_percent", FakeCloud(made={TARGETS_KEY: ["i-new-2"]}), runtime))
    assert runtime.commands == [("set_weights", {"old-1": 0.5, "old-2": 0.5}), ("retire_replica", "new-1")]


def test_rollback_of_half_leaves_dead_originals_alone() -> None:
    runtime = FakeRuntime([deployment(replica("old-1", "i-old-1", "dead"), replica("old-2", "i-old-2"))])
    asyncio.run(roll_back("scale_to_50_percent", FakeCloud(), runtime))
    assert runtime.commands == [("set_weights", {"old-2": 1.0})]


def test_rollback_of_canary_gives_traffic_back_while_cloud_is_away() -> None:
    runtime = FakeRuntime([deployment(*OLD, replica("new-1", "i-new-1"))])
    cloud = FakeCloud(made={TARGETS_KEY: ["i-new-1"]}, failure=CloudUnavailable("DescribeInstances: no answer"))
    seen = asyncio.run(error_of(roll_back("deploy_canary", cloud, runtime)))
    assert isinstance(seen, CloudUnavailable)
    assert runtime.commands == [("set_weights", {"old-1": 0.5, "old-2": 0.5})]


def test_deployment_of_several_replicas_waits_for_all_when_one_fails() -> None:
    ended: list[str] = []

    async def answer(key: str, *_command: Any) -> dict[str, Any]:
        if key == "opt_1:deploy:i-new-1":
            raise StepError("the engine does not start")
        await asyncio.sleep(0.05)
        ended.append(key)
        return {"replica_id": "new-2"}

    runtime = FakeRuntime([deployment(*OLD)], answer=answer)
    cloud = FakeCloud(made={TARGETS_KEY: ["i-new-1", "i-new-2"]})
    seen = asyncio.run(error_of(execute("full_migration", cloud, runtime)))
    assert str(seen) == "the engine does not start"
    assert ended == ["opt_1:deploy:i-new-2"]


@pytest.mark.parametrize(
    ("step", "weights"),
    [
        ("deploy_canary", {"old-1": 0.4, "old-2": 0.4, "new-1": 0.2}),
        ("scale_to_50_percent", {"old-1": 0.25, "old-2": 0.25, "new-1": 0.5}),
    ],
)
def test_stage_spreads_its_share_over_the_new_replicas(step: str, weights: dict[str, float]) -> None:
    async def answer(key: str, *_command: Any) -> dict[str, Any]:
        return {"replica_id": key.replace("opt_1:deploy:i-", "")}

    new = replica("new-1", "i-new-1"), replica("new-2", "i-new-2")
    runtime = FakeRuntime([deployment(*OLD, *new)], answer=answer)
    cloud = FakeCloud(made={TARGETS_KEY: ["i-new-1", "i-new-2"]})
    asyncio.run(execute(step, cloud, runtime))
    assert runtime.commands == [("set_weights", weights)]


def test_stage_with_a_dead_replica_of_an_earlier_stage_fails() -> None:
    async def answer(key: str, *_command: Any) -> dict[str, Any]:
        return {"replica_id": key.replace("opt_1:deploy:i-", "")}

    runtime = FakeRuntime([deployment(*OLD, replica("new-1", "i-new-1", "dead"))], answer=answer)
    cloud = FakeCloud(made={TARGETS_KEY: ["i-new-1"]})
    seen = asyncio.run(error_of(execute("scale_to_50_percent", cloud, runtime)))
    assert str(seen) == "new-1, which an earlier stage deployed, is dead"
    assert runtime.commands == []
