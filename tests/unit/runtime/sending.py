"""Helpers for tests that send telemetry to a fake platform."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from optiinfra.api.common import now
from optiinfra.api.telemetry import Sample
from optiinfra.runtime.outbox import Outbox
from tests.unit.runtime.fleet import FakePlatform


def sample(value: float, deployment_id: str = "d") -> Sample:
    return Sample(deployment_id=deployment_id, metric="m", timestamp=now(), value=value)


def received_values(platform: FakePlatform) -> list[float]:
    """The values of all samples that the platform accepted, in order."""
    return [value for _, body in platform.batches for sent in body["readings"] for value in sent["values"].values()]


@asynccontextmanager
async def sending(outbox: Outbox) -> AsyncIterator[None]:
    """Send in the background; at the end wait until everything was sent."""
    task = asyncio.create_task(outbox.run())
    try:
        yield
        await outbox.flush(2)
    finally:
        task.cancel()
