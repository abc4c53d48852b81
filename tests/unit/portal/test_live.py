"""Events carried on to the browser."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast

import httpx
import pytest

from optiinfra.api.events import Event
from optiinfra.kit.problems import Problem
from optiinfra.portal import live
from optiinfra.portal.platform import Platform
from optiinfra.portal.sessions import Access
from tests.unit.portal import fake


def event(seq: int, minutes: int) -> Event:
    return Event(
        id=f"evt_{seq}",
        seq=seq,
        event_type="step_started",
        source="orchestrator",
        agent_type=None,
        payload={},
        created_at=fake.NOW + timedelta(minutes=minutes),
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


def streamed(stream: Stream, *, after: int = 0, since_minute: int | None = None, ends: float = float("inf")) -> str:
    access = Access("token", fake.OWNER, ends)
    earliest = None if since_minute is None else fake.NOW + timedelta(minutes=since_minute)

    async def read() -> str:
        return "".join([part async for part in live._stream(cast("Platform", stream), access, after, earliest)])

    return asyncio.run(read())


def test_events_carry_their_number_and_older_ones_are_left_out() -> None:
    text = streamed(Stream(event(1, 0), event(2, 10), event(3, 11)), since_minute=10)
    assert [line for line in text.splitlines() if line.startswith("id:")] == ["id: 2", "id: 3"]
    assert '"event_type":"step_started"' in text


def test_a_browser_that_comes_back_goes_on_after_its_last_event() -> None:
    stream = Stream(event(8, 0))
    assert "id: 8" in streamed(stream, after=7)
    assert stream.after == 7


def test_silence_is_filled_and_an_absent_platform_ends_the_stream() -> None:
    text = streamed(Stream(None))
    assert text.startswith("retry: 2000")
    assert ": nothing new" in text
    assert text.rstrip().endswith(": gone")


def test_the_stream_ends_with_the_access_token() -> None:
    assert "id: 2" not in streamed(Stream(event(1, 0), event(2, 1)), ends=0.0)


def test_an_unreachable_socket_is_a_problem() -> None:
    platform = Platform(httpx.AsyncClient(base_url="http://127.0.0.1:9"))

    async def read() -> None:
        async for _ in platform.events("token", "cust_1", 0, 1.0):
            pass

    with pytest.raises(Problem, match="does not answer"):
        asyncio.run(read())
