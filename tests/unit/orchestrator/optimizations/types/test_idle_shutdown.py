"""Steps of an idle shutdown and their rollbacks."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from optiinfra.api.common import Wire, now
from optiinfra.api.parameters import IdleShutdownParameters
from optiinfra.api.runtimes import CommandKind, MeasureOutput
from optiinfra.clouds.protocol import LaunchSettings
from optiinfra.domain.recommendation import InstanceState
from optiinfra.orchestrator.optimizations.context import StepContext, StepError
from optiinfra.orchestrator.optimizations.types.idle_shutdown import IDLE_SHUTDOWN, DeploymentState, IdleSnapshot
from tests.unit.orchestrator.optimizations.fakes import (
    OLD,
    FakeCloud,
    FakeRuntime,
    cloud_instance,
    context,
    deployment,
    error_of,
    replica,
)

SETTINGS: LaunchSettings = {"InstanceType": "g5.12xlarge"}


def cloud_with(**states: InstanceState) -> FakeCloud:
    """An account with i-1 and i-2 in these states."""
    return FakeCloud(listed=[cloud_instance(name.replace("_", "-"), state) for name, state in states.items()])


def context_of(
    cloud: FakeCloud, *, dropped: int = 0, hosting: str | None = None
) -> StepContext[IdleShutdownParameters, IdleSnapshot]:
    """A shutdown of i-1 and i-2 beside `prod`, which has dropped some requests and may run on one of them."""
    parameters = IdleShutdownParameters(
        provider="aws", region="us-east-1", instance_ids=["i-1", "i-2"], idle_since=now(), hourly_cost=11.0
    )

    async def answer(_key: str, kind: CommandKind, _payload: Wire) -> dict[str, Any]:
        if kind != "measure":
            return {}
        measured = MeasureOutput(measured_at=now(), requests_served=1000, requests_dropped=dropped)
        return measured.model_dump(mode="json")

    engines = [*OLD, replica("new-1", hosting)] if hosting else OLD
    state = DeploymentState(
        deployment_id="dep_1", name="prod", replica_ids=["old-1", "old-2"], requests_dropped=0, p95_latency_ms=None
    )
    before = IdleSnapshot(cost=8_000.0, launch_settings={"i-1": SETTINGS, "i-2": SETTINGS}, deployments=[state])
    runtime = FakeRuntime([deployment(*engines)], answer=answer)
    return context(
        "idle_shutdown",
        parameters,
        before,
        cloud,
        runtime,
        instance_ids=parameters.instance_ids,
        deployment_id=None,
    )


def execute(step: str, change: StepContext[Any, Any]) -> Awaitable[Any]:
    return IDLE_SHUTDOWN.step(step).execute(change)


def called(cloud: FakeCloud, name: str) -> list[Any]:
    return [what for call, what in cloud.calls if call == name]


def test_stop_of_idle_instances_stops_all() -> None:
    cloud = cloud_with(i_1="running", i_2="running")
    assert asyncio.run(_detail(execute("stop_instances", context_of(cloud)))) == {"stopped": ["i-1", "i-2"]}
    assert called(cloud, "stop") == [["i-1", "i-2"]]


def test_stop_of_an_instance_that_serves_a_deployment_fails() -> None:
    cloud = cloud_with(i_1="running", i_2="running")
    seen = asyncio.run(error_of(execute("stop_instances", context_of(cloud, hosting="i-2"))))
    assert isinstance(seen, StepError)
    assert str(seen) == "i-2 serves prod: it is not idle any more"
    assert called(cloud, "stop") == []


def test_verify_of_stopped_instances_passes() -> None:
    cloud = cloud_with(i_1="stopped", i_2="stopped")
    assert asyncio.run(_detail(execute("verify_unaffected", context_of(cloud)))) == {"judged": []}


def test_verify_while_a_deployment_drops_requests_fails() -> None:
    cloud = cloud_with(i_1="stopped", i_2="stopped")
    seen = asyncio.run(error_of(execute("verify_unaffected", context_of(cloud, dropped=3))))
    assert str(seen) == "prod dropped 3 requests since the instances were stopped"


@pytest.mark.parametrize("state", ["pending", "running"])
def test_terminate_after_owner_started_an_instance_fails(state: InstanceState) -> None:
    cloud = cloud_with(i_1="stopped", i_2=state)
    seen = asyncio.run(error_of(execute("terminate_instances", context_of(cloud))))
    assert str(seen) == "i-2 was started again by its owner"
    assert called(cloud, "terminate") == []


def test_rollback_of_terminate_launches_only_what_is_gone() -> None:
    cloud = cloud_with(i_1="terminated", i_2="stopped")
    detail = asyncio.run(_detail(IDLE_SHUTDOWN.step("terminate_instances").rollback(context_of(cloud))))
    assert detail == {"launched": {"i-1": "i-like-i-1"}}
    assert called(cloud, "launch_like") == [("opt_1:restored:i-1", SETTINGS)]


def test_is_restored_with_all_instances_running_is_true() -> None:
    cloud = cloud_with(i_1="running", i_3="running")
    cloud.made["opt_1:restored:i-2"] = ["i-3"]
    assert asyncio.run(_detail(IDLE_SHUTDOWN.is_restored(context_of(cloud))))


def test_is_restored_with_a_stopped_instance_is_false() -> None:
    cloud = cloud_with(i_1="running", i_2="stopped")
    assert not asyncio.run(_detail(IDLE_SHUTDOWN.is_restored(context_of(cloud))))


def test_is_restored_with_other_launch_settings_is_false() -> None:
    cloud = cloud_with(i_1="running", i_2="running")

    async def other(instance_ids: Any) -> dict[str, LaunchSettings]:
        return {one: {"InstanceType": "g5.xlarge"} for one in instance_ids}

    cloud.launch_settings = other  # type: ignore[method-assign]
    assert not asyncio.run(_detail(IDLE_SHUTDOWN.is_restored(context_of(cloud))))


async def _detail(action: Awaitable[Any]) -> Any:
    return await action
