"""Steps of a migration on a cloud that takes spot instances back."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.clouds.protocol import CloudUnavailable
from optiinfra.domain.optimization import STEPS
from optiinfra.orchestrator.optimizations.rollout import STEP_ACTIONS
from optiinfra.orchestrator.optimizations.run import Run, StepError

MIGRATION = STEPS["spot_migration"]


class Cloud:
    """Has taken back what it is asked for; `living` are the instances of the step that are left."""

    def __init__(self, living: list[str], taken: list[str]) -> None:
        self.living, self.taken = living, taken

    async def interrupted(self, key: str) -> list[str]:
        return self.taken if key == "opt_1:targets" else []

    async def tagged(self, key: str) -> list[str]:
        return self.living if key == "opt_1:targets" else []

    async def ensure_instances(self, *_order: Any) -> list[str]:
        return self.living

    async def terminate(self, instance_ids: list[str]) -> None:
        raise AssertionError(f"{instance_ids} had to stay")


class Fleet:
    """A gateway whose engines are given as (replica, instance, state), and that notes what it is ordered."""

    def __init__(self, *engines: tuple[str, str, str]) -> None:
        self.engines = [SimpleNamespace(replica_id=one, instance_id=on, state=state) for one, on, state in engines]
        self.orders: list[tuple[str, Any]] = []

    async def deployment(self) -> Any:
        return SimpleNamespace(engines=self.engines)

    async def order_again(self, kind: str, payload: Any) -> dict[str, Any]:
        self.orders.append((kind, payload.replica_id if kind == "retire_replica" else payload.weights))
        return {}

    async def never(self, *_order: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}


def run_on(cloud: Cloud, fleet: Fleet) -> Run:
    """A migration off i-old-1 and i-old-2, each with half of the traffic before."""
    before = SimpleNamespace(
        engines=[SimpleNamespace(replica_id="old-1"), SimpleNamespace(replica_id="old-2")],
        weights={"old-1": 0.5, "old-2": 0.5},
        engine_args={},
    )
    parameters = SimpleNamespace(
        deployment="prod", instance_type="p4de.24xlarge", count=2, source_instance_ids=["i-old-1", "i-old-2"]
    )
    settings = SimpleNamespace(spot_watch_seconds=0.01, spot_blind_seconds=1.0, stage_deadline_seconds=60)
    run = SimpleNamespace(
        optimization_id="opt_1",
        customer_id="cust_1",
        cloud=cloud,
        parameters=parameters,
        snapshot=SimpleNamespace(deployment=before),
        platform=SimpleNamespace(settings=settings),
        deployment=fleet.deployment,
        order_again=fleet.order_again,
        order=fleet.never,
        measure=fleet.never,
    )
    return cast("Run", run)


OLD = (("old-1", "i-old-1", "ready"), ("old-2", "i-old-2", "ready"))


@pytest.mark.parametrize("step", MIGRATION)
def test_no_step_goes_on_when_an_instance_that_it_relies_on_is_taken_back(step: str) -> None:
    fleet = Fleet(*OLD, ("new-1", "i-new-1", "ready"))
    cloud = Cloud(["i-new-1", "i-new-2"], ["i-new-1"])
    if step == "create_spot_instances":
        cloud.ensure_instances = fleet.never  # type: ignore[method-assign,assignment]

    async def outcome() -> object:
        doing = asyncio.wait_for(STEP_ACTIONS[step].do(run_on(cloud, fleet)), 2)
        (seen,) = await asyncio.gather(doing, return_exceptions=True)
        return seen

    seen = asyncio.run(outcome())
    assert isinstance(seen, StepError)
    assert "takes back spot instances that this relies on: i-new-1" in str(seen)
    assert fleet.orders == [], "nothing may be changed any more"


def test_going_back_takes_away_what_died_with_its_instance() -> None:
    fleet = Fleet(*OLD, ("new-1", "i-new-1", "dead"), ("new-2", "i-new-2", "ready"))
    run = run_on(Cloud(["i-new-2"], ["i-new-1"]), fleet)
    asyncio.run(STEP_ACTIONS["scale_to_50_percent"].undo(run))
    assert fleet.orders == [("set_weights", {"old-1": 0.5, "old-2": 0.5}), ("retire_replica", "new-1")]


def test_going_back_leaves_originals_that_died_to_those_whose_they_are() -> None:
    fleet = Fleet(("old-1", "i-old-1", "dead"), ("old-2", "i-old-2", "ready"))
    run = run_on(Cloud([], []), fleet)
    asyncio.run(STEP_ACTIONS["scale_to_50_percent"].undo(run))
    assert fleet.orders == [("set_weights", {"old-2": 1.0})]


def test_traffic_goes_back_though_the_cloud_is_away() -> None:
    fleet, cloud = Fleet(*OLD, ("new-1", "i-new-1", "ready")), Cloud(["i-new-1"], [])

    async def away(_key: str) -> list[str]:
        raise CloudUnavailable("DescribeInstances: no answer")

    cloud.tagged = away  # type: ignore[method-assign,assignment]

    async def outcome() -> object:
        (seen,) = await asyncio.gather(STEP_ACTIONS["deploy_canary"].undo(run_on(cloud, fleet)), return_exceptions=True)
        return seen

    assert isinstance(asyncio.run(outcome()), CloudUnavailable)
    assert fleet.orders == [("set_weights", {"old-1": 0.5, "old-2": 0.5})]


def test_where_one_order_fails_the_others_come_to_their_end_first() -> None:
    fleet, ended = Fleet(*OLD), list[str]()
    run = run_on(Cloud(["i-new-1", "i-new-2"], []), fleet)

    async def order(name: str, *_order: Any) -> dict[str, Any]:
        if name == "deploy:i-new-1":
            raise StepError("the engine does not start")
        await asyncio.sleep(0.05)
        ended.append(name)
        return {"replica_id": "new-2"}

    run.order = order  # type: ignore[method-assign,assignment]
    with pytest.raises(StepError, match="does not start"):
        asyncio.run(STEP_ACTIONS["full_migration"].do(run))
    assert ended == ["deploy:i-new-2"]
