"""Orders: carried out once, answered always."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from optiinfra.api.runtimes import Command, CommandKind
from optiinfra.runtime import commands
from optiinfra.runtime.collect import Collector
from optiinfra.runtime.commands import Commander
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import TokenRefusedError
from tests.unit.runtime.fleet import FakeGateway, FakePlatform

pytestmark = pytest.mark.anyio
Connect = Callable[[], Awaitable[Commander]]


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def connect(gateway: FakeGateway, platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    for deadline in ("READY_SECONDS", "DRAIN_SECONDS", "LEAST_SECONDS"):
        monkeypatch.setattr(commands, deadline, 0.3)
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text('prompts: [{id: p, messages: [{role: user, content: "q"}], expected: "1"}]')

    async def build() -> Commander:
        connection, customers = await platform.connect(), gateway.connect()
        outbox = Outbox(connection)
        inventory = Inventory(customers, connection, outbox)
        return Commander(connection, customers, inventory, Collector(customers), outbox, prompts)

    return build


def command(kind: CommandKind, key: str = "key", **payload: Any) -> Command:
    return Command(command_id="cmd_1", idempotency_key=key, kind=kind, payload={"deployment": "chat"} | payload)


async def test_a_replica_is_deployed_when_its_engine_is_ready(connect: Connect, gateway: FakeGateway) -> None:
    gateway.health = [503, 503, 200]
    result = await (await connect()).carry_out(command("deploy_replica", instance_id="i-3"))
    assert (result.ok, result.output) == (True, {"replica_id": "r3"})
    assert ("POST", "/deployments/chat/replicas", "key") in gateway.seen
    assert gateway.seen.count(("GET", "/replicas/r3/health", None)) == 3


async def test_an_engine_that_does_not_get_ready_is_an_answer_too(connect: Connect, gateway: FakeGateway) -> None:
    gateway.health = [503]
    result = await (await connect()).carry_out(command("deploy_replica", instance_id="i-3"))
    assert (result.ok, result.output) == (False, {"replica_id": "r3"})
    assert "its health answers 503" in (result.error or "")


async def test_the_gateways_refusal_is_passed_on(connect: Connect) -> None:
    result = await (await connect()).carry_out(command("deploy_replica", instance_id="i-gone"))
    assert not result.ok
    assert "i-gone is not running" in (result.error or "")


async def test_a_replica_with_traffic_is_not_retired(connect: Connect, gateway: FakeGateway) -> None:
    result = await (await connect()).carry_out(command("retire_replica", replica_id="r1"))
    assert not result.ok
    assert "has weight 0.5" in (result.error or "")
    assert "r1" in gateway.weights


async def test_a_replica_is_drained_before_it_goes(connect: Connect, gateway: FakeGateway) -> None:
    gateway.weights, gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0, 5.0, 2.0, 0.0]
    result = await (await connect()).carry_out(command("retire_replica", replica_id="r2"))
    assert (result.ok, gateway.weights) == (True, {"r1": 1.0})
    assert (await (await connect()).carry_out(command("retire_replica", replica_id="r2"))).ok


async def test_a_replica_that_does_not_drain_stays(connect: Connect, gateway: FakeGateway) -> None:
    gateway.weights, gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0]
    result = await (await connect()).carry_out(command("retire_replica", replica_id="r2"))
    assert not result.ok
    assert "5 requests are running" in (result.error or "")
    assert "r2" in gateway.weights


async def test_a_key_that_succeeded_is_answered_again_without_another_effect(
    connect: Connect, gateway: FakeGateway, platform: FakePlatform
) -> None:
    commander, order = await connect(), command("set_weights", weights={"r1": 1.0, "r2": 0.0})
    assert (await commander.carry_out(order)).ok
    gateway.weights = {"r1": 0.5, "r2": 0.5}
    assert (await commander.carry_out(order)).ok
    assert gateway.weights == {"r1": 0.5, "r2": 0.5}
    assert [report["deployments"][0]["weights"]["r2"] for report in platform.inventories] == [0.0]


async def test_what_is_delivered_twice_while_at_work_is_done_once(
    connect: Connect, gateway: FakeGateway, platform: FakePlatform
) -> None:
    gateway.health = [503, 503, 503, 200]
    order = command("deploy_replica", instance_id="i-3")
    platform.deliveries = [[order, order], [order], [], [], [], [], []]
    commander = await connect()
    with pytest.raises(ExceptionGroup) as ended:
        await commander.run()
    assert ended.group_contains(TokenRefusedError)
    assert [seen[:2] for seen in gateway.seen].count(("POST", "/deployments/chat/replicas")) == 1
    assert [(command_id, result.ok) for command_id, result in platform.results] == [("cmd_1", True)]


async def test_golden_prompts_go_straight_to_the_replicas(connect: Connect, gateway: FakeGateway) -> None:
    order = command("golden_prompts", replica_ids=["r1", "r2"], offset=1, count=2)
    result = await (await connect()).carry_out(order)
    assert [answer["answer"] for answer in result.output["answers"]] == ["answer 1"] * 2
    assert sorted((asked["replica_id"], asked["seed"]) for asked in gateway.asked) == [("r1", 1), ("r2", 2)]


async def test_an_order_that_makes_no_sense_is_answered(connect: Connect) -> None:
    result = await (await connect()).carry_out(command("golden_prompts", replica_ids="r1"))
    assert not result.ok
    assert "golden_prompts" in (result.error or "")
