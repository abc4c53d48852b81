"""The inventory and the history of new deployments, as reported to the platform."""

import json
import math

import pytest

from optiinfra.runtime.gateway import GatewayError
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from tests.unit.runtime.fleet import HISTORY, FakeGateway, FakePlatform
from tests.unit.runtime.sending import received_values, sending

pytestmark = pytest.mark.anyio


async def test_refresh_reports_changes_and_sends_history_once() -> None:
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
    assert {metric: value for reading in sent["readings"] for metric, value in reading["values"].items()} == {
        "throughput": 2.0,
        "p95_latency_ms": 900.0,
        "gpu_utilization": 0.5,
    }


async def test_refresh_does_not_send_history_that_the_platform_has() -> None:
    fake, gateway = FakePlatform(history_wanted=[]), FakeGateway()
    connection = await fake.connect()
    await Inventory(gateway.connect(), connection, Outbox(connection)).refresh()
    assert len(fake.inventories) == 1
    assert ("GET", "/history", None) not in gateway.seen


async def test_refresh_after_failed_history_sends_it_later() -> None:
    fake, gateway = FakePlatform(), FakeGateway(answers={"/history": b"<html>"})
    connection = await fake.connect()
    box = Outbox(connection)
    inventory = Inventory(gateway.connect(), connection, box)
    with pytest.raises(GatewayError, match="/history"):
        await inventory.refresh()
    # An hour without one of the figures is sent without it.
    gateway.answers = {"/history": json.dumps([HISTORY | {"gpu_utilization": math.nan}]).encode()}
    await inventory.refresh()
    async with sending(box):
        pass
    assert received_values(fake) == [2.0, 900.0]
