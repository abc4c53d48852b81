"""The connection to the platform: nothing lost while it is away, nothing sent twice that was taken."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from optiinfra.api.common import now
from optiinfra.api.runtimes import Command
from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from optiinfra.kit.retries import DeadlineError
from optiinfra.runtime import customer, outbox, platform
from optiinfra.runtime.enrolment import Enrolment
from optiinfra.runtime.gateway import GatewayError
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import Platform, RejectedError, TokenRefusedError
from optiinfra.runtime.settings import RuntimeSettings
from tests.unit.logs import logged
from tests.unit.runtime.fleet import HISTORY, FakeGateway, FakePlatform

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "FIRST_PAUSE", 0.001)


def sample(value: float) -> Sample:
    return Sample(deployment_id="d", metric="m", timestamp=now(), value=value)


def batch(value: float) -> TelemetryBatch:
    return TelemetryBatch(samples=[sample(value)])


def values(fake: FakePlatform) -> list[float]:
    return [sent["value"] for _, body in fake.batches for sent in body["samples"]]


@asynccontextmanager
async def sending(box: Outbox) -> AsyncIterator[None]:
    """Send until all that is put in is gone."""
    task = asyncio.create_task(box.run())
    try:
        yield
        await box.flush(2)
    finally:
        task.cancel()


async def test_away_is_waited_for_and_refused_is_not() -> None:
    fake = FakePlatform()
    connection = await fake.connect()
    fake.failures = [503, 500, 429]
    await connection.send(batch(1), "key")
    assert [key for key, _ in fake.batches] == ["key"]
    fake.failures = [401]
    with pytest.raises(TokenRefusedError):
        await connection.send(batch(1), "key")
    fake.failures = [422]
    with pytest.raises(RejectedError, match="not now"):
        await connection.send(batch(1), "key")


async def test_telemetry_keeps_its_order_and_its_key_until_it_is_taken() -> None:
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    fake.failures = [503, 0, 503]
    async with sending(box):
        for value in (1.0, 2.0, 3.0):
            await box.put([sample(value)])
    assert values(fake) == [1.0, 2.0, 3.0]
    first, second, third = (key for key, _ in fake.batches)
    assert fake.tried == [first, first, first, first, second, third]
    assert len({first, second, third}) == 3


async def test_a_rejected_batch_does_not_hold_up_the_next() -> None:
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    fake.failures = [422]
    async with sending(box):
        await box.put([sample(1)])
        await box.put([sample(2)])
    assert values(fake) == [2.0]


async def test_a_batch_that_the_platform_keeps_failing_at_is_given_up_with_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "SEND_SECONDS", 0.01)
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    fake.rejected, fake.rejection = "/telemetry", 500
    with logged(outbox) as logs:
        async with sending(box):
            await box.put([sample(1)])
    assert len(set(fake.tried)) == 1
    assert len(fake.tried) > 1
    (error,) = [entry["error"] for entry in logs if entry["log_level"] == "error"]
    assert "failed for 0 s; last seen: 500 no" in error


async def test_a_platform_that_is_away_loses_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "SEND_SECONDS", 0.005)
    fake = FakePlatform()
    connection = await fake.connect()
    fake.failures = [503, 0, 0, 0, 429, 503]  # more than 5 ms from the first to the last, but gone in between
    await connection.send(batch(1), "key")
    assert values(fake) == [1.0]


async def test_waiting_for_telemetry_to_be_taken_ends() -> None:
    box = Outbox(await FakePlatform().connect())
    await box.put([sample(1)])
    with pytest.raises(DeadlineError, match="that wait: 1"):
        await box.flush(0.01)


async def test_much_telemetry_is_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BATCH_ROWS", 2)
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    count = LatencyCount(deployment_id="d", replica_id="r", timestamp=now(), le=1.0, count=1)
    async with sending(box):
        await box.put([sample(1), sample(2), sample(3)], [count] * 5)
        await box.put([])
    assert values(fake) == [1.0, 2.0, 3.0]
    assert [len(body["latencies"]) for _, body in fake.batches] == [2, 2, 1]


async def test_too_much_telemetry_gives_up_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "KEPT_BATCHES", 2)
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    for value in (1.0, 2.0, 3.0):
        await box.put([sample(value)])
    async with sending(box):
        pass
    assert values(fake) == [2.0, 3.0]


async def test_inventory_is_reported_when_it_changes_and_history_once() -> None:
    fake, gateway = FakePlatform(), FakeGateway()
    connection = await fake.connect()
    box = Outbox(connection)
    inventory = Inventory(gateway.connect(), connection, box)
    await inventory.refresh()
    await inventory.refresh()
    assert len(fake.inventories) == 1
    gateway.weights = {"r1": 1.0, "r2": 0.0}
    await inventory.refresh()
    assert len(fake.inventories) == 2
    async with sending(box):
        pass
    ((_, sent),) = fake.batches
    assert {sample["metric"]: sample["value"] for sample in sent["samples"]} == {
        "throughput": 2.0,
        "p95_latency_ms": 900.0,
        "gpu_utilization": 0.5,
    }


async def test_history_that_the_platform_has_is_not_sent_again() -> None:
    fake, gateway = FakePlatform(history_wanted=[]), FakeGateway()
    connection = await fake.connect()
    await Inventory(gateway.connect(), connection, Outbox(connection)).refresh()
    assert len(fake.inventories) == 1
    assert ("GET", "/history", None) not in gateway.seen


async def test_history_is_asked_for_again_when_the_gateway_did_not_give_it() -> None:
    fake, gateway = FakePlatform(), FakeGateway(answers={"/history": b"<html>"})
    connection = await fake.connect()
    box = Outbox(connection)
    inventory = Inventory(gateway.connect(), connection, box)
    with pytest.raises(GatewayError, match="/history"):
        await inventory.refresh()
    # No number where nothing was measured: the rest of the hour is worth sending.
    gateway.answers = {"/history": json.dumps([HISTORY | {"gpu_utilization": math.nan}]).encode()}
    await inventory.refresh()
    async with sending(box):
        pass
    assert values(fake) == [2.0, 900.0]


async def test_a_connection_that_breaks_is_made_anew_until_the_token_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, connected = FakePlatform(rejected="/connect"), 0

    def connect(*_given: object) -> Platform:
        nonlocal connected
        connected += 1
        fake.rejected = "/connect" if connected == 1 else ""
        client = httpx.AsyncClient(transport=httpx.MockTransport(fake), base_url="http://platform")
        return Platform("", "cust_1", "token", "1", client=client)

    monkeypatch.setattr(customer, "Platform", connect)
    monkeypatch.setattr(customer, "Gateway", lambda *_given: FakeGateway().connect())
    monkeypatch.setattr(customer, "LONGEST_PAUSE", 0.001)
    settings = RuntimeSettings(orchestrator_url="", runtime_enrolments=Path(), state_dir=Path(), version="v1")
    found = Enrolment(customer_id="cust_1", agent_token="t", gateway_url="", golden_prompts=Path())
    fake.deliveries = [[Command(command_id="cmd_1", idempotency_key="k", kind="discover", payload={})], [], []]
    async with asyncio.timeout(5):
        await customer.serve(found, settings)
    assert connected == 2
    assert [(command_id, result.ok) for command_id, result in fake.results] == [("cmd_1", True)]
