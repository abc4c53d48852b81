"""A runtime between a fake gateway and a fake platform."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from optiinfra.runtime import commands, platform, replicas
from optiinfra.runtime.collect import Collector
from optiinfra.runtime.commands import CommandExecutor
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.outbox import Outbox
from tests.unit.runtime.fleet import FakeGateway, FakePlatform

Connect = Callable[[], Awaitable[CommandExecutor]]


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "SHORTEST_BACKOFF", 0.001)


@pytest.fixture
def fake_gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def fake_platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of 0.3 s, for tests that miss them."""
    for deadline in ("READY_SECONDS", "DRAIN_SECONDS", "LEAST_SECONDS"):
        monkeypatch.setattr(replicas, deadline, 0.3)
    monkeypatch.setattr(commands, "FLUSH_SECONDS", 0.3)


@pytest.fixture
def connect(fake_gateway: FakeGateway, fake_platform: FakePlatform, tmp_path: Path) -> Connect:
    """Connects an executor with one golden prompt."""
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text('prompts: [{id: p, messages: [{role: user, content: "q"}], expected: "1"}]')

    async def build() -> CommandExecutor:
        connection, gateway = await fake_platform.connect(), fake_gateway.connect()
        outbox = Outbox(connection)
        inventory = Inventory(gateway, connection, outbox)
        return CommandExecutor(connection, gateway, inventory, Collector(gateway), outbox, prompts)

    return build
