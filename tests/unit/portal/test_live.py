"""Events carried on to the browser."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest
from starlette.testclient import TestClient
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from optiinfra.api.events import Event
from optiinfra.kit.problems import Problem
from optiinfra.portal import live
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access
from tests.unit.portal import fake


def event(seq: int) -> Event:
    return Event(
        id=f"evt_{seq}",
        seq=seq,
        event_type="step_started",
        source="orchestrator",
        agent_type=None,
        payload={},
        created_at=fake.NOW,
    )


class Stream:
    """A platform whose events are told beforehand, and which then goes away."""

    def __init__(self, *told: Event | None) -> None:
        self.told = told
        self.after = -1

    async def events(self, _token: str, _customer: str, after: int, _idle: float) -> AsyncIterator[Event | None]:
        self.after = after
        for one in self.told:
            yield one
        raise Problem(503, "platform_unavailable", "gone")


def streamed(stream: Stream, *, after: int = 0, ends: float = float("inf")) -> str:
    access = Access("token", fake.OWNER, ends)

    async def read() -> str:
        return "".join([part async for part in live._stream(cast("Platform", stream), access, after)])

    return asyncio.run(read())


def test_events_carry_their_number() -> None:
    text = streamed(Stream(event(2), event(3)))
    assert [line for line in text.splitlines() if line.startswith("id:")] == ["id: 2", "id: 3"]
    assert '"event_type":"step_started"' in text


@pytest.mark.parametrize(("seen", "goes_on"), [(None, 41), ("43", 43), ("0", 0)])
def test_a_page_asks_for_what_comes_after_it_and_a_stream_goes_on_where_it_broke_off(
    owner: TestClient, monkeypatch: pytest.MonkeyPatch, seen: str | None, goes_on: int
) -> None:
    stream = Stream(event(44))
    monkeypatch.setattr(Platform, "events", lambda _self, *asked: stream.events(*asked))
    page = owner.get("/").text
    after = page.partition('data-after="')[2].partition('"')[0]
    headers = {} if seen is None else {"last-event-id": seen}
    assert "id: 44" in owner.get(f"/events?after={after}", headers=headers).text
    assert stream.after == goes_on


@pytest.mark.parametrize("query", ["", "?after=", "?after=-1", "?after=yesterday", "?since=0001-01-01T00:00:00"])
def test_a_stream_without_a_place_to_start_is_refused(owner: TestClient, query: str) -> None:
    assert owner.get(f"/events{query}", headers={"accept": "text/event-stream"}).status_code == 422


def test_silence_is_filled_and_an_absent_platform_ends_the_stream() -> None:
    text = streamed(Stream(None))
    assert text.startswith("retry: 2000")
    assert ": nothing new" in text
    assert text.rstrip().endswith(": gone")


def test_the_stream_ends_with_the_access_token() -> None:
    text = streamed(Stream(event(1), event(2)), ends=0.0)
    assert "id: 1" in text
    assert "id: 2" not in text


def test_an_unreachable_socket_is_a_problem() -> None:
    platform = Platform(httpx.AsyncClient(base_url="http://127.0.0.1:9"))

    async def read() -> None:
        async for _ in platform.events("token", "cust_1", 0, 1.0):
            pass

    with pytest.raises(Problem, match="does not answer"):
        asyncio.run(read())


@pytest.mark.parametrize(("sent", "raised"), [("{}", "cannot be read"), (event(44).model_dump_json(), None)])
def test_what_the_socket_says_is_an_event_or_a_problem(sent: str, raised: str | None) -> None:
    async def say(socket: ServerConnection) -> None:
        await socket.send(sent)

    async def read() -> list[Event | None]:
        async with serve(say, "127.0.0.1", 0, subprotocols=[Subprotocol("optiinfra.v1")]) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            platform = Platform(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
            return [one async for one in platform.events("token", "cust_1", 0, 5.0)]

    if raised is None:
        assert asyncio.run(read()) == [event(44)]
    else:
        with pytest.raises(Problem, match=raised):
            asyncio.run(read())
