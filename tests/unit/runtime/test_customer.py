"""One customer's connection."""

import asyncio
from pathlib import Path

import httpx
import pytest

from optiinfra.api.runtimes import Command
from optiinfra.runtime import customer
from optiinfra.runtime.enrolment import Enrolment
from optiinfra.runtime.platform import Platform
from optiinfra.runtime.settings import RuntimeSettings
from tests.unit.runtime.fleet import FakeGateway, FakePlatform

pytestmark = pytest.mark.anyio


async def test_serve_connects_again_after_errors_until_the_token_is_refused(
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
    monkeypatch.setattr(customer, "LONGEST_BACKOFF", 0.001)
    settings = RuntimeSettings(orchestrator_url="", runtime_enrolments=Path(), state_dir=Path(), version="v1")
    found = Enrolment(customer_id="cust_1", agent_token="t", gateway_url="", golden_prompts=Path())
    fake.deliveries = [[Command(command_id="cmd_1", idempotency_key="k", kind="discover", payload={})], [], []]
    async with asyncio.timeout(5):
        await customer.serve(found, settings)
    assert connected == 2
    assert [(command_id, result.ok) for command_id, result in fake.results] == [("cmd_1", True)]
