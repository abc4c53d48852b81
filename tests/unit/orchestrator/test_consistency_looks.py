"""Asking whether stores agree: twice where something dangles, and never silent on what could not be asked."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.api.consistency import Dangling
from optiinfra.orchestrator.consistency import service
from optiinfra.orchestrator.platform import Platform

pytestmark = pytest.mark.anyio

LOST = Dangling(store="redis", kind="presence", id="agent_1", refers_to="registered agent agent_1")
NOWHERE = cast("Platform", SimpleNamespace())


async def refused(*_anything: Any) -> Any:
    raise ConnectionError("refused")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def seeing(monkeypatch: pytest.MonkeyPatch, *looks: list[Dangling]) -> None:
    """Each look finds the next of these; one more is an error."""
    left = list(looks)

    async def look(_platform: Platform) -> Any:
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
    away = SimpleNamespace(owners=refused, points=refused, everyone=refused)
    platform = cast("Platform", SimpleNamespace(telemetry=away, memory=away, presence=away, database=None))
    seen = await service.check(platform)
    assert not seen.consistent
    assert {one.store for one in seen.dangling} == {"clickhouse", "postgresql", "qdrant", "redis"}
    assert seen.checked == {}
