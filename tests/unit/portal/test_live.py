"""Live events relayed to the browser."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from starlette.testclient import TestClient

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
    """A platform that sends these events and then becomes unavailable."""

    def __init__(self, *events: Event | None) -> None:
        self.sent = events
        self.after = -1

    async def events(self, _token: str, _customer: str, after: int, _idle: float) -> AsyncIterator[Event | None]:
        self.after = after
        for one in self.sent:
            yield one
        raise Problem(503, "platform_unavailable", "gone")


def streamed(stream: Stream, *, after: int = 0, ends: float = float("inf")) -> str:
    access = Access("token", fake.OWNER, ends)

    async def read() -> str:
        return "".join([part async for part in live.relay(cast("Platform", stream), access, after)])

    return asyncio.run(read())


def test_relay_sends_events_with_their_number() -> None:
    text = streamed(Stream(event(2), event(3)))
    assert [line for line in text.splitlines() if line.startswith("id:")] == ["id: 2", "id: 3"]
    assert '"event_type":"step_started"' in text


@pytest.mark.parametrize(("seen", "expected"), [(None, 41), ("43", 43), ("0", 0)])
def test_events_start_after_the_page_or_after_the_last_event_received(
    owner: TestClient, monkeypatch: pytest.MonkeyPatch, seen: str | None, expected: int
) -> None:
    stream = Stream(event(44))
    monkeypatch.setattr(Platform, "events", lambda _self, *asked: stream.events(*asked))
    page = owner.get("/").text
    after = page.partition('data-after="')[2].partition('"')[0]
    headers = {} if seen is None else {"last-event-id": seen}
    assert "id: 44" in owner.get(f"/events?after={after}", headers=headers).text
    assert stream.after == expected


@pytest.mark.parametrize("query", ["", "?after=", "?after=-1", "?after=yesterday", "?since=0001-01-01T00:00:00"])
def test_events_without_a_valid_start_are_refused(owner: TestClient, query: str) -> None:
    assert owner.get(f"/events{query}", headers={"accept": "text/event-stream"}).status_code == 422


def test_events_of_an_ended_session_are_refused(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.logins += 1
    assert owner.get("/events?after=0", headers={"accept": "text/event-stream"}).status_code == 401


def test_relay_sends_keep_alives_and_ends_when_the_platform_is_unavailable() -> None:
    text = streamed(Stream(None))
    assert text.startswith("retry: 2000")
    assert ": keep-alive" in text
    assert text.rstrip().endswith(": gone")


def test_relay_ends_when_the_access_token_expires() -> None:
    text = streamed(Stream(event(1), event(2)), ends=0.0)
    assert "id: 1" in text
    assert "id: 2" not in text
