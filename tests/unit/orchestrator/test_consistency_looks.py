"""Asking whether stores agree: twice where something dangles, and never silent on what could not be asked."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.api.consistency import Dangling
from optiinfra.orchestrator.consistency import service
from optiinfra.orchestrator.consistency.rules import Known
from optiinfra.orchestrator.platform import Platform

pytestmark = pytest.mark.anyio

LOST = Dangling(store="redis", kind="presence", id="agent_1", refers_to="registered agent agent_1")
ROLE = "arn:aws:iam::111122223333:role/optiinfra"
NOWHERE = cast("Platform", SimpleNamespace())


async def refused(*_anything: Any) -> Any:
    raise ConnectionError("refused")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def seeing(monkeypatch: pytest.MonkeyPatch, *looks: list[Dangling]) -> None:
    """Each look finds the next of these; one more is an error."""
    left = list(looks)

    async def look(_platform: Platform, _given_up: list[Dangling]) -> Any:
        return service._Look({"presence": len(left)}, left.pop(0))

    monkeypatch.setattr(service, "_look", look)
    monkeypatch.setattr(service, "_SETTLING_SECONDS", 0.0)


async def test_one_look_suffices_when_nothing_dangles(monkeypatch: pytest.MonkeyPatch) -> None:
    seeing(monkeypatch, [])
    seen = await service.check(NOWHERE)
    assert (seen.consistent, seen.dangling) == (True, [])


async def test_what_dangles_at_two_looks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seeing(monkeypatch, [LOST], [LOST])
    seen = await service.check(NOWHERE)
    assert (seen.consistent, seen.dangling) == (False, [LOST])
    assert seen.checked == {"presence": 1}, "the counts are the last look's"


async def test_what_has_settled_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seeing(monkeypatch, [LOST], [])
    assert (await service.check(NOWHERE)).consistent


async def test_what_cannot_be_asked_dangles() -> None:
    async def answered() -> int:
        return 7

    look = service._Look()
    assert await look.asked("qdrant", "outcomes", refused) is None
    assert await look.asked("redis", "presence", answered) == 7
    (found,) = look.dangling
    assert (found.store, found.kind, found.id) == ("qdrant", "unreachable", "outcomes")
    assert found.refers_to == "ConnectionError: refused"


async def test_a_platform_without_its_stores_is_not_consistent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_SETTLING_SECONDS", 0.0)
    away = SimpleNamespace(owners=refused, points=refused, agent_ids=refused)
    platform = cast("Platform", SimpleNamespace(telemetry=away, memory=away, presence=away, database=None))
    seen = await service.check(platform)
    assert not seen.consistent
    assert {one.store for one in seen.dangling} == {"clickhouse", "postgresql", "qdrant", "redis"}
    assert seen.checked == {}


class Clouds:
    """Accounts in a fake cloud: each answers, but for those that are `away`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: list[str], away: set[str]) -> None:
        self.asked: list[str] = []
        self._away = away
        place = {"customer_id": "cust_1", "provider": "aws", "region": "us-east-1", "role_arn": ROLE}
        rows = [SimpleNamespace(id=name, **place) for name in names]

        async def estates(_platform: Platform) -> Any:
            return rows, [], []

        async def known(_platform: Platform) -> Known:
            return Known()

        async def nothing(*_anything: Any) -> Any:
            """No answer, which none of the looks needs."""

        monkeypatch.setattr(service, "_estates", estates)
        monkeypatch.setattr(service, "_known", known)
        monkeypatch.setattr(service, "_soft_references", nothing)
        monkeypatch.setattr(service, "cloud_of", self._cloud_of)
        monkeypatch.setattr(service, "_SETTLING_SECONDS", 0.0)
        monkeypatch.setattr(service, "_ANSWER_SECONDS", 0.1)
        monkeypatch.setattr(service, "_ALL_ACCOUNTS_SECONDS", 0.3)
        present = SimpleNamespace(agent_ids=self._agent_ids)
        stores = SimpleNamespace(owners=nothing, points=nothing)
        self.platform = cast(
            "Platform", SimpleNamespace(telemetry=stores, memory=stores, presence=present, settings=None)
        )

    async def _agent_ids(self) -> set[str]:
        return {"agent_1"}  # dangles, so that there is a second look

    async def _cloud_of(self, _settings: Any, row: Any) -> Any:
        async def answer() -> Any:
            self.asked.append(row.id)
            if row.id in self._away:
                await asyncio.Event().wait()
            return {}

        return SimpleNamespace(instances=answer, open_requests=answer)


async def test_an_account_that_is_away_is_told_in_time_and_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = Clouds(monkeypatch, ["acct_here", "acct_away"], {"acct_away"})
    async with asyncio.timeout(5):
        seen = await service.check(clouds.platform)
    assert [(one.kind, one.id) for one in seen.dangling] == [("unreachable", "acct_away"), ("presence", "agent_1")]
    assert seen.dangling[0].refers_to == f"aws us-east-1 as {ROLE}: no answer in time"
    assert seen.checked["cloud_accounts"] == 1, "the other one is looked at all the same"
    assert clouds.asked.count("acct_away") == 1
    assert clouds.asked.count("acct_here") == 4, "for instances and orders, at both looks"


async def test_however_many_accounts_are_away_the_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {f"acct_{number}" for number in range(20 * service._ACCOUNTS_AT_ONCE)}
    clouds = Clouds(monkeypatch, sorted(names), names)
    began = time.monotonic()
    seen = await service.check(clouds.platform)
    assert time.monotonic() - began < 1.5, "one batch after the other they would take 2 s"
    assert {one.id for one in seen.dangling if one.kind == "unreachable"} == names
