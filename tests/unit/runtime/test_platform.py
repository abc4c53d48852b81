"""Calls to the platform: retried while it is unavailable."""

import pytest

from optiinfra.api.telemetry import TelemetryBatch
from optiinfra.runtime import platform
from optiinfra.runtime.platform import RejectedError, TokenRefusedError
from tests.unit.runtime.fleet import FakePlatform
from tests.unit.runtime.sending import received_values, sample

pytestmark = pytest.mark.anyio


def batch(value: float) -> TelemetryBatch:
    return TelemetryBatch.of([sample(value)])


async def test_call_is_retried_while_the_platform_is_unavailable_but_not_when_refused() -> None:
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


async def test_send_while_the_platform_is_unavailable_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "SEND_SECONDS", 0.005)
    fake = FakePlatform()
    connection = await fake.connect()
    fake.failures = [503, 0, 0, 0, 429, 503]  # more than 5 ms in all, but not of server errors alone
    await connection.send(batch(1), "key")
    assert received_values(fake) == [1.0]
