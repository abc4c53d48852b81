"""Commands on replicas: deployed, given weights, restarted and retired."""

import asyncio
from typing import Any

import pytest

from optiinfra.runtime.collect import Collector, Scraped
from tests.unit.runtime.commands import command
from tests.unit.runtime.conftest import Connect
from tests.unit.runtime.fleet import FakeGateway, FakePlatform

pytestmark = pytest.mark.anyio
ARGS = {"max_num_seqs": 64, "quantization": "fp8"}


async def test_deploy_replica_waits_until_the_engine_is_ready(connect: Connect, fake_gateway: FakeGateway) -> None:
    fake_gateway.health = [503, 503, 200]
    result = await (await connect()).execute(command("deploy_replica", instance_id="i-3"))
    assert (result.ok, result.output) == (True, {"replica_id": "r3"})
    assert ("POST", "/deployments/chat/replicas", "key") in fake_gateway.seen
    assert fake_gateway.seen.count(("GET", "/replicas/r3/health", None)) == 3


@pytest.mark.usefixtures("short_deadlines")
async def test_deploy_replica_that_is_not_ready_in_time_fails_with_its_id(
    connect: Connect, fake_gateway: FakeGateway
) -> None:
    fake_gateway.health = [503]
    result = await (await connect()).execute(command("deploy_replica", instance_id="i-3"))
    assert (result.ok, result.output) == (False, {"replica_id": "r3"})
    assert "its health check answered 503" in (result.error or "")


async def test_deploy_replica_refused_by_the_gateway_fails_with_its_reason(connect: Connect) -> None:
    result = await (await connect()).execute(command("deploy_replica", instance_id="i-gone"))
    assert not result.ok
    assert "i-gone is not running" in (result.error or "")


async def test_retire_replica_with_weight_is_refused(connect: Connect, fake_gateway: FakeGateway) -> None:
    result = await (await connect()).execute(command("retire_replica", replica_id="r1"))
    assert not result.ok
    assert "has weight 0.5" in (result.error or "")
    assert "r1" in fake_gateway.weights


async def test_retire_replica_drains_it_and_is_idempotent(connect: Connect, fake_gateway: FakeGateway) -> None:
    fake_gateway.weights, fake_gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0, 5.0, 2.0, 0.0]
    result = await (await connect()).execute(command("retire_replica", replica_id="r2"))
    assert (result.ok, fake_gateway.weights) == (True, {"r1": 1.0})
    assert (await (await connect()).execute(command("retire_replica", replica_id="r2"))).ok


@pytest.mark.usefixtures("short_deadlines")
async def test_retire_replica_that_does_not_drain_in_time_fails(connect: Connect, fake_gateway: FakeGateway) -> None:
    fake_gateway.weights, fake_gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0]
    result = await (await connect()).execute(command("retire_replica", replica_id="r2"))
    assert not result.ok
    assert "5 requests are running" in (result.error or "")
    assert "r2" in fake_gateway.weights


async def test_retire_replica_that_gets_weight_while_draining_is_refused(
    connect: Connect, fake_gateway: FakeGateway
) -> None:
    fake_gateway.weights, fake_gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0]
    executor = await connect()
    retiring = asyncio.create_task(executor.execute(command("retire_replica", "retire", replica_id="r2")))
    async with asyncio.timeout(2):
        while len(fake_gateway.seen) < 2:  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0)
    assert (await executor.execute(command("set_weights", "back", weights={"r1": 0.5, "r2": 0.5}))).ok
    fake_gateway.running = [0.0]
    result = await retiring
    assert (result.ok, fake_gateway.weights) == (False, {"r1": 0.5, "r2": 0.5})
    assert "has weight 0.5" in (result.error or "")


async def test_set_weights_twice_applies_them_in_the_order_of_the_commands(
    connect: Connect, fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtake, original = asyncio.Event(), Collector.scrape

    async def slow_at_first(collector: Collector, ids: dict[str, str]) -> Scraped:
        if not overtake.is_set():
            overtake.set()
            await asyncio.sleep(0.05)
        return await original(collector, ids)

    monkeypatch.setattr(Collector, "scrape", slow_at_first)
    executor, settings = await connect(), ({"r1": 1.0, "r2": 0.0}, {"r1": 0.2, "r2": 0.8})
    issued = [command("set_weights", f"key {number}", weights=weights) for number, weights in enumerate(settings)]
    assert all(result.ok for result in await asyncio.gather(*map(executor.execute, issued)))
    assert [key for method, _, key in fake_gateway.seen if method == "PUT"] == ["key 0", "key 1"]
    assert fake_gateway.weights == settings[1]


async def test_set_weights_does_not_wait_for_a_loading_engine(connect: Connect, fake_gateway: FakeGateway) -> None:
    fake_gateway.health = [503]
    executor = await connect()
    loading = asyncio.create_task(executor.execute(command("deploy_replica", "deploy", instance_id="i-3")))
    assert (await executor.execute(command("set_weights", "back", weights={"r1": 1.0, "r3": 0.0}))).ok
    assert not loading.done()
    assert "r3" in fake_gateway.weights  # the command that was issued first is applied first
    fake_gateway.health = [200]
    assert (await loading).ok


def restarts(fake_gateway: FakeGateway) -> list[tuple[str, str | None]]:
    """Replica and idempotency key of each restart that the gateway was asked for."""
    return [
        (path.split("/")[2], key)
        for method, path, key in fake_gateway.seen
        if (method, path[-12:]) == ("PUT", "/engine-args")
    ]


async def test_restart_replica_drains_it_and_waits_until_it_is_ready_with_the_arguments(
    connect: Connect, fake_gateway: FakeGateway, fake_platform: FakePlatform
) -> None:
    fake_gateway.weights, fake_gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0, 5.0, 5.0, 2.0, 2.0, 0.0]
    fake_gateway.health = [503, 200]
    result = await (await connect()).execute(command("restart_replica", replica_id="r2", engine_args=ARGS))
    assert (result.ok, result.output, result.error) == (True, {}, None)
    assert restarts(fake_gateway) == [("r2", "key")]
    assert fake_gateway.engine_args == {"r2": ARGS}
    assert fake_gateway.requests_at_restart == [0.0]
    assert fake_gateway.seen.count(("GET", "/replicas/r2/health", None)) == 2
    assert fake_platform.inventories


async def test_restart_replica_measures_its_last_requests_before_its_counters_are_reset(
    connect: Connect, fake_gateway: FakeGateway
) -> None:
    fake_gateway.weights = {"r1": 1.0, "r2": 0.0}
    executor = await connect()
    await executor.execute(command("discover", "discover"))
    fake_gateway.seen.clear()
    await executor.execute(command("restart_replica", replica_id="r2", engine_args=ARGS))
    calls = [(method, path) for method, path, _ in fake_gateway.seen]
    assert calls.index(("GET", "/replicas/r2/metrics")) < calls.index(("PUT", "/replicas/r2/engine-args"))


async def test_restart_replica_with_weight_is_refused(connect: Connect, fake_gateway: FakeGateway) -> None:
    result = await (await connect()).execute(command("restart_replica", replica_id="r1", engine_args=ARGS))
    assert not result.ok
    assert "has weight 0.5" in (result.error or "")
    assert restarts(fake_gateway) == []


@pytest.mark.usefixtures("short_deadlines")
async def test_restart_replica_that_does_not_drain_in_time_fails(connect: Connect, fake_gateway: FakeGateway) -> None:
    fake_gateway.weights, fake_gateway.running = {"r1": 1.0, "r2": 0.0}, [5.0]
    result = await (await connect()).execute(command("restart_replica", replica_id="r2", engine_args=ARGS))
    assert not result.ok
    assert "5 requests are running" in (result.error or "")
    assert restarts(fake_gateway) == []


async def test_restart_replica_that_has_the_arguments_is_not_restarted_even_with_weight(
    connect: Connect, fake_gateway: FakeGateway
) -> None:
    fake_gateway.engine_args = {"r1": ARGS}
    result = await (await connect()).execute(command("restart_replica", replica_id="r1", engine_args=ARGS))
    assert (result.ok, restarts(fake_gateway)) == (True, [])


async def test_restart_replica_without_an_argument_that_it_has_restarts_it(
    connect: Connect, fake_gateway: FakeGateway
) -> None:
    fake_gateway.weights, fake_gateway.engine_args = {"r1": 1.0, "r2": 0.0}, {"r2": ARGS}
    result = await (await connect()).execute(command("restart_replica", replica_id="r2", engine_args={}))
    assert (result.ok, fake_gateway.engine_args) == (True, {"r2": {}})


async def test_restart_replica_that_restarts_already_waits_until_ready(
    connect: Connect, fake_gateway: FakeGateway
) -> None:
    fake_gateway.engine_args, fake_gateway.starting = {"r2": ARGS}, {"r2": 3}
    result = await (await connect()).execute(command("restart_replica", replica_id="r2", engine_args=ARGS))
    assert (result.ok, restarts(fake_gateway), fake_gateway.starting["r2"]) == (True, [], 0)


@pytest.mark.usefixtures("short_deadlines")
async def test_restart_replica_that_is_not_ready_in_time_fails(connect: Connect, fake_gateway: FakeGateway) -> None:
    fake_gateway.weights, fake_gateway.start_reads = {"r1": 1.0, "r2": 0.0}, 1000
    result = await (await connect()).execute(command("restart_replica", replica_id="r2", engine_args=ARGS))
    assert not result.ok
    assert "restarted replica r2" in (result.error or "")
    assert "starting with" in (result.error or "")


@pytest.mark.parametrize(
    ("replica_id", "refuse", "reason"), [("r9", False, "chat has no replica r9"), ("r2", True, "422")]
)
async def test_restart_replica_that_is_impossible_fails_at_once(
    connect: Connect, fake_gateway: FakeGateway, replica_id: str, refuse: bool, reason: str, monkeypatch: Any
) -> None:
    fake_gateway.weights, fake_gateway.refuse_engine_args = {"r1": 1.0, "r2": 0.0}, refuse
    executor = await connect()
    monkeypatch.setattr("optiinfra.runtime.replicas.LEAST_SECONDS", 60.0)
    async with asyncio.timeout(5):
        result = await executor.execute(command("restart_replica", replica_id=replica_id, engine_args=ARGS))
    assert not result.ok
    assert reason in (result.error or "")
