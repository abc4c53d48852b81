"""Commands: executed once, acknowledged always."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from optiinfra.api.runtimes import CommandKind
from optiinfra.runtime import commands
from optiinfra.runtime.collect import Collector
from optiinfra.runtime.inventory import Inventory
from optiinfra.runtime.platform import TokenRefusedError
from tests.unit.logs import logged
from tests.unit.runtime.commands import command
from tests.unit.runtime.conftest import Connect
from tests.unit.runtime.fleet import FakeGateway, FakePlatform

pytestmark = pytest.mark.anyio


async def test_command_that_succeeded_is_not_executed_again(
    connect: Connect, fake_gateway: FakeGateway, fake_platform: FakePlatform
) -> None:
    executor, issued = await connect(), command("set_weights", weights={"r1": 1.0, "r2": 0.0})
    assert (await executor.execute(issued)).ok
    fake_gateway.weights = {"r1": 0.5, "r2": 0.5}
    assert (await executor.execute(issued)).ok
    assert fake_gateway.weights == {"r1": 0.5, "r2": 0.5}
    assert [report["deployments"][0]["weights"]["r2"] for report in fake_platform.inventories] == [0.0]


async def test_command_delivered_again_while_running_is_executed_once(
    connect: Connect, fake_gateway: FakeGateway, fake_platform: FakePlatform
) -> None:
    fake_gateway.health = [503, 503, 503, 200]
    issued = command("deploy_replica", instance_id="i-3")
    fake_platform.deliveries = [[issued, issued], [issued], [], [], [], [], []]
    executor = await connect()
    with pytest.raises(ExceptionGroup) as ended:
        await executor.run()
    assert ended.group_contains(TokenRefusedError)
    assert [seen[:2] for seen in fake_gateway.seen].count(("POST", "/deployments/chat/replicas")) == 1
    assert [(command_id, result.ok) for command_id, result in fake_platform.results] == [("cmd_1", True)]


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
async def test_invalid_answer_of_the_gateway_fails_the_command_with_its_route(
    connect: Connect, fake_gateway: FakeGateway, kind: CommandKind, asked: dict[str, Any], end: str, answer: bytes
) -> None:
    fake_gateway.answers = {end: answer}
    result = await (await connect()).execute(command(kind, **asked))
    assert not result.ok
    assert f"{end}: 200, but the body is invalid" in (result.error or "")


async def test_unexpected_error_fails_the_command_and_is_logged_with_its_trace(
    connect: Connect, fake_platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refresh(_inventory: Inventory, *, always: bool = False) -> None:
        raise LookupError("unexpected")

    monkeypatch.setattr(Inventory, "refresh", refresh)
    fake_platform.deliveries = [[command("discover")], [], []]
    with logged(commands) as logs, pytest.raises(ExceptionGroup) as ended:
        await (await connect()).run()
    assert ended.group_contains(TokenRefusedError)
    ((_, result),) = fake_platform.results
    assert (result.ok, result.error) == (False, "discover: LookupError: unexpected")
    assert [entry["exc_info"] for entry in logs if entry["log_level"] == "error"] == [True]


async def test_call_rejected_by_the_platform_fails_the_command(connect: Connect, fake_platform: FakePlatform) -> None:
    executor = await connect()
    fake_platform.deliveries, fake_platform.rejected = [[command("discover")], [], []], "/inventory"
    with logged(commands) as logs, pytest.raises(ExceptionGroup):
        await executor.run()
    assert {entry["log_level"] for entry in logs} == {"info"}
    ((_, result),) = fake_platform.results
    assert (result.ok, "/inventory: 422 no" in (result.error or "")) == (False, True)


async def test_refused_token_ends_the_command_without_a_result(connect: Connect, fake_platform: FakePlatform) -> None:
    executor = await connect()
    fake_platform.failures = [401]
    with pytest.raises(TokenRefusedError):
        await executor.execute(command("discover"))


@pytest.mark.usefixtures("short_deadlines")
async def test_measure_waits_for_its_telemetry_up_to_a_deadline(connect: Connect) -> None:
    executor = await connect()  # nothing is sent, so telemetry stays in the outbox
    assert (await executor.execute(command("measure", "first"))).output["requests_served"] == 200
    await executor.execute(command("discover", "history"))
    result = await executor.execute(command("measure", "second"))
    assert not result.ok
    assert "telemetry batches waiting: 2" in (result.error or "")


async def test_golden_prompts_are_excluded_from_telemetry(
    connect: Connect, fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    excluded: list[str] = []

    @contextmanager
    def excluding_own_requests(_collector: Collector, deployment: str) -> Iterator[None]:
        assert not fake_gateway.prompts
        yield
        assert len(fake_gateway.prompts) == 2
        excluded.append(deployment)

    monkeypatch.setattr(Collector, "excluding_own_requests", excluding_own_requests)
    await (await connect()).execute(command("golden_prompts", replica_ids=["r1"], offset=0, count=2))
    assert excluded == ["chat"]


async def test_golden_prompts_are_asked_of_each_replica(connect: Connect, fake_gateway: FakeGateway) -> None:
    issued = command("golden_prompts", replica_ids=["r1", "r2"], offset=1, count=2)
    result = await (await connect()).execute(issued)
    assert [answer["answer"] for answer in result.output["answers"]] == ["answer 1"] * 2
    assert sorted((asked["replica_id"], asked["seed"]) for asked in fake_gateway.prompts) == [("r1", 1), ("r2", 2)]


async def test_invalid_payload_fails_the_command(connect: Connect) -> None:
    result = await (await connect()).execute(command("golden_prompts", replica_ids="r1"))
    assert not result.ok
    assert "golden_prompts" in (result.error or "")
