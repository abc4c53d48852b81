"""Telemetry waiting to be sent: in order, each batch accepted once."""

import pytest

from optiinfra.api.common import now
from optiinfra.api.telemetry import LatencyCount
from optiinfra.kit.retries import DeadlineError
from optiinfra.runtime import outbox, platform
from optiinfra.runtime.outbox import Outbox
from tests.unit.logs import logged
from tests.unit.runtime.fleet import FakePlatform
from tests.unit.runtime.sending import received_values, sample, sending

pytestmark = pytest.mark.anyio


async def test_batches_keep_order_and_key_until_accepted() -> None:
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    fake.failures = [503, 0, 503]
    async with sending(box):
        for value in (1.0, 2.0, 3.0):
            await box.put([sample(value)])
    assert received_values(fake) == [1.0, 2.0, 3.0]
    first, second, third = (key for key, _ in fake.batches)
    assert fake.attempts == [first, first, first, first, second, third]
    assert len({first, second, third}) == 3


async def test_rejected_batch_does_not_block_the_next() -> None:
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    fake.failures = [422]
    async with sending(box):
        await box.put([sample(1)])
        await box.put([sample(2)])
    assert received_values(fake) == [2.0]


async def test_batch_is_sent_without_the_deployments_that_are_gone() -> None:
    fake = FakePlatform(gone={"old", "older"})
    box = Outbox(await fake.connect())

    def count(deployment_id: str) -> LatencyCount:
        return LatencyCount(deployment_id=deployment_id, replica_id="r", timestamp=now(), le=1.0, count=1)

    with logged(outbox) as logs:
        async with sending(box):
            await box.put([sample(1, "old"), sample(2), sample(3, "older")], [count("older"), count("d")])
            await box.put([sample(4, "old")], [count("old")])
            await box.put([sample(5)])
    assert received_values(fake) == [2.0, 5.0]
    assert [[row["deployment_id"] for row in body["latencies"]] for _, body in fake.batches] == [["d"], []]
    first, third = (key for key, _ in fake.batches)
    assert fake.attempts[:3] == [first] * 3
    assert fake.attempts[-1] == third
    assert {entry["log_level"] for entry in logs} == {"info"}


async def test_batch_that_keeps_failing_is_discarded_with_a_logged_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "SEND_SECONDS", 0.01)
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    fake.rejected, fake.rejection = "/telemetry", 500
    with logged(outbox) as logs:
        async with sending(box):
            await box.put([sample(1)])
    assert len(set(fake.attempts)) == 1
    assert len(fake.attempts) > 1
    (error,) = [entry["error"] for entry in logs if entry["log_level"] == "error"]
    assert "failed for 0 s; last answer: 500 no" in error


async def test_flush_without_acceptance_ends_at_its_deadline() -> None:
    box = Outbox(await FakePlatform().connect())
    await box.put([sample(1)])
    with pytest.raises(DeadlineError, match="batches waiting: 1"):
        await box.flush(0.01)


async def test_put_many_rows_splits_them_into_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BATCH_ROWS", 2)
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    count = LatencyCount(deployment_id="d", replica_id="r", timestamp=now(), le=1.0, count=1)
    async with sending(box):
        await box.put([sample(1), sample(2), sample(3)], [count] * 5)
        await box.put([])
    assert received_values(fake) == [1.0, 2.0, 3.0]
    assert [len(body["latencies"]) for _, body in fake.batches] == [2, 2, 1]


async def test_put_above_the_limit_discards_the_oldest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "KEPT_BATCHES", 2)
    fake = FakePlatform()
    box = Outbox(await fake.connect())
    for value in (1.0, 2.0, 3.0):
        await box.put([sample(value)])
    async with sending(box):
        pass
    assert received_values(fake) == [2.0, 3.0]
