"""The connection to the platform: nothing lost while it is away, nothing sent twice that was taken."""

import asyncio
import json
from pathlib import Path

import pytest

from optiinfra.api.common import now
from optiinfra.api.telemetry import Sample, TelemetryBatch
from optiinfra.runtime import customer, enrolment, outbox, platform
from optiinfra.runtime.enrolment import Enrolment
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from optiinfra.runtime.platform import RejectedError, TokenRefusedError
from optiinfra.runtime.settings import RuntimeSettings
from optiinfra.runtime.supervisor import Supervisor
from tests.unit.runtime.fleet import FakeGateway, FakePlatform

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "FIRST_PAUSE", 0.001)


def batch(value: float) -> TelemetryBatch:
    return TelemetryBatch(samples=[Sample(deployment_id="d", metric="m", timestamp=now(), value=value)])


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
    fake.failures = [503, 503]
    sending = asyncio.create_task(box.run())
    for value in (1.0, 2.0, 3.0):
        await box.put(batch(value))
    await asyncio.wait_for(box.flush(), 2)
    assert [body["samples"][0]["value"] for _, body in fake.batches] == [1.0, 2.0, 3.0]
    assert len({key for key, _ in fake.batches}) == 3
    sending.cancel()


async def test_a_rejected_batch_does_not_hold_up_the_next() -> None:
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    fake.failures = [422]
    sending = asyncio.create_task(box.run())
    await box.put(batch(1))
    await box.put(batch(2))
    await asyncio.wait_for(box.flush(), 2)
    assert [body["samples"][0]["value"] for _, body in fake.batches] == [2.0]
    sending.cancel()


async def test_too_much_telemetry_gives_up_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "KEPT_BATCHES", 2)
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    for value in (1.0, 2.0, 3.0):
        await box.put(batch(value))
    sending = asyncio.create_task(box.run())
    await asyncio.wait_for(box.flush(), 2)
    assert [body["samples"][0]["value"] for _, body in fake.batches] == [2.0, 3.0]
    sending.cancel()


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
    sending = asyncio.create_task(box.run())
    await asyncio.wait_for(box.flush(), 2)
    sending.cancel()
    ((_, sent),) = fake.batches
    assert {sample["metric"]: sample["value"] for sample in sent["samples"]} == {
        "throughput": 2.0,
        "p95_latency_ms": 900.0,
        "gpu_utilization": 0.5,
    }


def test_a_file_that_is_no_enrolment_is_left_out(tmp_path: Path) -> None:
    good = {"customer_id": "c", "agent_token": "t", "gateway_url": "http://g", "golden_prompts": "p"}
    (tmp_path / "c.json").write_text(json.dumps(good))
    (tmp_path / "broken.json").write_text("{")
    assert list(enrolment.read_all(tmp_path)) == ["c"]


async def test_customers_come_and_go_with_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: asyncio.Queue[str] = asyncio.Queue()

    async def serve(found: Enrolment, _settings: RuntimeSettings) -> None:
        calls.put_nowait(f"serving {found.customer_id}")
        try:
            await asyncio.Event().wait()
        finally:
            calls.put_nowait(f"ended {found.customer_id}")

    monkeypatch.setattr(customer, "serve", serve)
    folder, stop = tmp_path / "enrolments", asyncio.Event()
    settings = RuntimeSettings(orchestrator_url="http://o", runtime_enrolments=folder, state_dir=tmp_path, version="v1")
    running = asyncio.create_task(Supervisor(settings).run(stop))
    async with asyncio.timeout(10):
        while not folder.is_dir():  # noqa: ASYNC110  the folder is all there is to see
            await asyncio.sleep(0.01)
        for name in ("a", "b"):
            wanted = {"customer_id": name, "agent_token": "t", "gateway_url": "http://g", "golden_prompts": "p"}
            (folder / f"{name}.json").write_text(json.dumps(wanted))
            assert await calls.get() == f"serving {name}"
        (folder / "a.json").unlink()
        assert await calls.get() == "ended a"
        stop.set()
        await running
    assert calls.get_nowait() == "ended b"
    status = json.loads((tmp_path / "runtime-status.json").read_text())
    assert status["version"] == "v1"
