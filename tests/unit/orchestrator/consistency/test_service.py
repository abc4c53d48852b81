"""The consistency check: two passes where something dangles, and a finding for whatever does not answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.api.consistency import Dangling
from optiinfra.clouds.protocol import CloudInstance
from optiinfra.orchestrator.consistency import repository, service
from optiinfra.orchestrator.consistency.rules import Known
from optiinfra.orchestrator.consistency.service import CONCURRENT_ACCOUNTS, Deadlines
from optiinfra.orchestrator.platform import Platform

pytestmark = pytest.mark.anyio

ORPHAN = Dangling(store="redis", kind="presence", id="agent_1", refers_to="registered agent agent_1")
ROLE = "arn:aws:iam::111122223333:role/optiinfra"
SHORT = Deadlines(answer=0.1, all_accounts=0.3, between_passes=0.0)


async def refuse(*_arguments: Any) -> Any:
    raise ConnectionError("refused")


async def nothing(*_arguments: Any) -> Any:
    """A store that holds nothing."""


class Presence:
    """Redis with these agents' keys, per pass."""

    def __init__(self, passes: Sequence[Collection[str]]) -> None:
        self.passes = list(passes)

    async def agent_ids(self) -> set[str]:
        return set(self.passes.pop(0))


class Clouds:
    """Cloud accounts of which the `unavailable` ones never answer."""

    def __init__(self, names: Sequence[str] = (), unavailable: Collection[str] = ()) -> None:
        self.names, self.unavailable = names, unavailable
        self.asked: list[str] = []

    def rows(self) -> list[Any]:
        place = {"customer_id": "cust_1", "provider": "aws", "region": "us-east-1", "role_arn": ROLE}
        return [SimpleNamespace(id=name, **place) for name in self.names]

    async def cloud_of(self, _settings: Any, row: Any) -> "Cloud":
        return Cloud(self, row.id)


class Cloud:
    """One of the accounts, without instances."""

    def __init__(self, clouds: Clouds, name: str) -> None:
        self.clouds, self.name = clouds, name

    async def instances(self) -> list[CloudInstance]:
        await self._answer()
        return []

    async def open_requests(self) -> dict[str, dict[str, str]]:
        await self._answer()
        return {}

    async def _answer(self) -> None:
        self.clouds.asked.append(self.name)
        if self.name in self.clouds.unavailable:
            await asyncio.Event().wait()


def platform_with(
    monkeypatch: pytest.MonkeyPatch,
    *passes: Collection[str],
    clouds: Clouds | None = None,
    points: Any = nothing,
) -> Platform:
    """A platform without registered agents; each pass finds the next of these sets of agents in Redis."""
    accounts = clouds or Clouds()

    async def estates(_database: Any) -> Any:
        return accounts.rows(), [], []

    async def known(_database: Any, _heartbeat_seconds: float) -> Known:
        return Known()

    async def no_reference(_session: Any, _kind: str) -> tuple[int, list[Dangling]]:
        return 0, []

    @asynccontextmanager
    async def transaction() -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(repository, "estates", estates)
    monkeypatch.setattr(repository, "known", known)
    monkeypatch.setattr(service, "dangling_in", no_reference)
    monkeypatch.setattr(service, "cloud_of", accounts.cloud_of)
    return cast(
        "Platform",
        SimpleNamespace(
            telemetry=SimpleNamespace(owners=nothing),
            memory=SimpleNamespace(points=points),
            presence=Presence(passes),
            database=SimpleNamespace(transaction=transaction),
            settings=SimpleNamespace(heartbeat_seconds=1.0),
        ),
    )


async def test_check_without_a_dangling_reference_does_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    result = await service.check(platform_with(monkeypatch, []), SHORT)
    assert (result.consistent, result.dangling) == (True, [])


async def test_check_reports_what_dangles_in_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    result = await service.check(platform_with(monkeypatch, ["agent_1", "agent_2"], ["agent_1"]), SHORT)
    assert (result.consistent, result.dangling) == (False, [ORPHAN])
    assert result.checked["presence"] == 1, "the counts are the last pass's"


async def test_check_ignores_what_dangles_in_one_pass_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await service.check(platform_with(monkeypatch, ["agent_1"], []), SHORT)).consistent
    assert (await service.check(platform_with(monkeypatch, ["agent_1"], ["agent_2"]), SHORT)).consistent


async def test_check_reports_a_store_that_fails_and_checks_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    result = await service.check(platform_with(monkeypatch, [], points=refuse), SHORT)
    (found,) = result.dangling
    assert (found.store, found.kind, found.id) == ("qdrant", "unreachable", "outcomes")
    assert found.refers_to == "ConnectionError: refused"
    assert "presence" in result.checked
    assert "points" not in result.checked


async def test_check_without_any_store_is_not_consistent() -> None:
    stores = SimpleNamespace(owners=refuse, points=refuse, agent_ids=refuse)
    settings = SimpleNamespace(heartbeat_seconds=1.0)
    platform = SimpleNamespace(telemetry=stores, memory=stores, presence=stores, database=None, settings=settings)
    result = await service.check(cast("Platform", platform), SHORT)
    assert not result.consistent
    assert {one.store for one in result.dangling} == {"clickhouse", "postgresql", "qdrant", "redis"}
    assert result.checked == {}


async def test_check_reports_an_unavailable_account_in_time_and_asks_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = Clouds(["acct_here", "acct_away"], {"acct_away"})
    async with asyncio.timeout(5):
        result = await service.check(platform_with(monkeypatch, ["agent_1"], ["agent_1"], clouds=clouds), SHORT)
    assert [(one.kind, one.id) for one in result.dangling] == [("unreachable", "acct_away"), ("presence", "agent_1")]
    assert result.dangling[0].refers_to == f"aws us-east-1 as {ROLE}: no answer in time"
    assert result.checked["cloud_accounts"] == 1, "the other account is checked all the same"
    assert clouds.asked.count("acct_away") == 1
    assert clouds.asked.count("acct_here") == 4, "for instances and requests, in both passes"


async def test_check_with_many_unavailable_accounts_keeps_the_overall_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {f"acct_{number}" for number in range(2 * CONCURRENT_ACCOUNTS)}
    clouds = Clouds(sorted(names), names)
    deadlines = Deadlines(answer=8.0, all_accounts=0.2, between_passes=0.0)
    began = time.monotonic()
    result = await service.check(platform_with(monkeypatch, ["agent_1"], ["agent_1"], clouds=clouds), deadlines)
    assert time.monotonic() - began < 8.0, "one batch after the other they would take 16 s"
    assert {one.id for one in result.dangling if one.kind == "unreachable"} == names
