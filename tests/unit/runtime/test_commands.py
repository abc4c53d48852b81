"""Orders: carried out once, answered always."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from optiinfra.api.runtimes import Command, CommandKind
from optiinfra.runtime import commands
from optiinfra.runtime.collect import Collector, Round
from optiinfra.runtime.commands import Commander
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import TokenRefusedError
from tests.unit.logs import logged
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
    for deadline in ("READY_SECONDS", "DRAIN_SECONDS", "LEAST_SECONDS", "FLUSH_SECONDS"):
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


async def test_a_replica_whose_traffic_comes_back_while_it_drains_stays(connect: Connect, gateway: FakeGateway) -> None:
    gateway.weights, gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0]
    commander = await connect()
    retiring = asyncio.create_task(commander.carry_out(command("retire_replica", "retire", replica_id="r2")))
    async with asyncio.timeout(2):
        while len(gateway.seen) < 2:  # noqa: ASYNC110  what the gateway was asked is all there is to see
            await asyncio.sleep(0)
    assert (await commander.carry_out(command("set_weights", "back", weights={"r1": 0.5, "r2": 0.5}))).ok
    gateway.running = [0.0]
    result = await retiring
    assert (result.ok, gateway.weights) == (False, {"r1": 0.5, "r2": 0.5})
    assert "has weight 0.5" in (result.error or "")


async def test_of_two_settings_of_the_weights_the_later_one_stays(
    connect: Connect, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtake, look = asyncio.Event(), Collector.round

    async def slow_at_first(collector: Collector, ids: dict[str, str]) -> Round:
        if not overtake.is_set():
            overtake.set()
            await asyncio.sleep(0.05)
        return await look(collector, ids)

    monkeypatch.setattr(Collector, "round", slow_at_first)
    commander, settings = await connect(), ({"r1": 1.0, "r2": 0.0}, {"r1": 0.2, "r2": 0.8})
    orders = [command("set_weights", f"key {number}", weights=weights) for number, weights in enumerate(settings)]
    assert all(result.ok for result in await asyncio.gather(*map(commander.carry_out, orders)))
    assert [key for method, _, key in gateway.seen if method == "PUT"] == ["key 0", "key 1"]
    assert gateway.weights == settings[1]


async def test_traffic_can_go_back_while_an_engine_loads(connect: Connect, gateway: FakeGateway) -> None:
    gateway.health = [503]
    commander = await connect()
    loading = asyncio.create_task(commander.carry_out(command("deploy_replica", "deploy", instance_id="i-3")))
    assert (await commander.carry_out(command("set_weights", "back", weights={"r1": 1.0, "r3": 0.0}))).ok
    assert not loading.done()
    assert "r3" in gateway.weights  # given first, added first
    assert not (await loading).ok


@pytest.mark.parametrize(
    ("kind", "asked", "end", "answer"),
    [
        ("golden_prompts", {"replica_ids": ["r1"], "offset": 0, "count": 3}, "/completions", b'{"choices": []}'),
        ("golden_prompts", {"replica_ids": ["r1"], "offset": 0, "count": 3}, "/completions", b"<html>"),
        ("golden_prompts", {"replica_ids": ["r1"], "offset": 0, "count": 3}, "/deployments/chat", b'{"name": "chat"}'),
        ("deploy_replica", {"instance_id": "i-3"}, "/replicas", b"{}"),
        ("discover", {}, "/deployments", b"\xff"),
        ("discover", {}, "/history", b'[{"deployment": "chat"}]'),
    ],
)
async def test_what_the_gateway_should_not_answer_is_passed_on_with_its_route(
    connect: Connect, gateway: FakeGateway, kind: CommandKind, asked: dict[str, Any], end: str, answer: bytes
) -> None:
    gateway.answers = {end: answer}
    result = await (await connect()).carry_out(command(kind, **asked))
    assert not result.ok
    assert f"{end}: 200, but not as expected" in (result.error or "")


async def test_an_unexpected_error_is_an_answer_and_a_trace_in_the_log(
    connect: Connect, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refresh(_inventory: Inventory, *, always: bool = False) -> None:
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(Inventory, "refresh", refresh)
    platform.deliveries = [[command("discover")], [], []]
    with logged(commands) as logs, pytest.raises(ExceptionGroup) as ended:
        await (await connect()).run()
    assert ended.group_contains(TokenRefusedError)
    ((_, result),) = platform.results
    assert (result.ok, result.error) == (False, "discover: LookupError: nobody thought of this")
    assert [entry["exc_info"] for entry in logs if entry["log_level"] == "error"] == [True]


async def test_what_the_platform_rejects_on_the_way_is_answered(connect: Connect, platform: FakePlatform) -> None:
    commander = await connect()
    platform.deliveries, platform.rejected = [[command("discover")], [], []], "/inventory"
    with logged(commands) as logs, pytest.raises(ExceptionGroup):
        await commander.run()
    assert {entry["log_level"] for entry in logs} == {"info"}
    ((_, result),) = platform.results
    assert (result.ok, "/inventory: 422 no" in (result.error or "")) == (False, True)


async def test_a_refused_token_is_no_answer_to_an_order(connect: Connect, platform: FakePlatform) -> None:
    commander = await connect()
    platform.failures = [401]
    with pytest.raises(TokenRefusedError):
        await commander.carry_out(command("discover"))


async def test_a_measurement_waits_for_its_telemetry_to_be_taken_but_not_for_ever(connect: Connect) -> None:
    commander = await connect()  # nothing sends: what is put into the outbox stays there
    assert (await commander.carry_out(command("measure", "first"))).output["requests_served"] == 200
    await commander.carry_out(command("discover", "history"))
    result = await commander.carry_out(command("measure", "second"))
    assert not result.ok
    assert "batches of telemetry that wait: 2" in (result.error or "")


async def test_golden_prompts_are_not_the_customers_traffic(
    connect: Connect, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out: list[str] = []

    @contextmanager
    def leaving_out(_collector: Collector, deployment: str) -> Iterator[None]:
        assert not gateway.asked
        yield
        assert len(gateway.asked) == 2
        left_out.append(deployment)

    monkeypatch.setattr(Collector, "leaving_out", leaving_out)
    await (await connect()).carry_out(command("golden_prompts", replica_ids=["r1"], offset=0, count=2))
    assert left_out == ["chat"]


async def test_golden_prompts_go_straight_to_the_replicas(connect: Connect, gateway: FakeGateway) -> None:
    order = command("golden_prompts", replica_ids=["r1", "r2"], offset=1, count=2)
    result = await (await connect()).carry_out(order)
    assert [answer["answer"] for answer in result.output["answers"]] == ["answer 1"] * 2
    assert sorted((asked["replica_id"], asked["seed"]) for asked in gateway.asked) == [("r1", 1), ("r2", 2)]


async def test_an_order_that_makes_no_sense_is_answered(connect: Connect) -> None:
    result = await (await connect()).carry_out(command("golden_prompts", replica_ids="r1"))
    assert not result.ok
    assert "golden_prompts" in (result.error or "")
