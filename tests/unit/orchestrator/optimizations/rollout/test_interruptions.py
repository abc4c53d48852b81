"""Detection of spot interruptions while an action runs."""

import asyncio
from typing import Any, cast

import pytest

from optiinfra.clouds.protocol import CloudUnavailable, RoleDenied
from optiinfra.orchestrator.optimizations.context import StepContext, StepError
from optiinfra.orchestrator.optimizations.rollout.interruptions import fail_on_interruption
from tests.unit.orchestrator.optimizations.fakes import TARGETS_KEY, FakeCloud, platform

LONG, SHORT = 60.0, 0.05


class WatchedCloud(FakeCloud):
    """Answers each poll with the next of its answers, then always with the last; `watched` is set after six polls."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        super().__init__()
        self.answers = list(answers)
        self.looks = 0
        self.watched = asyncio.Event()

    async def interrupted_instances(self, key: str) -> list[str]:
        assert key == TARGETS_KEY
        self.looks += 1
        if self.looks == 6:
            self.watched.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Work:
    """Runs until an event, by default without end, and cleans up when it is cancelled."""

    def __init__(self, done: asyncio.Event | None = None) -> None:
        self.done, self.cleaned_up = done or asyncio.Event(), False

    async def run(self) -> str:
        try:
            async with asyncio.timeout(5):
                await self.done.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.cleaned_up = True
            raise
        return "done"


class Watch:
    """What `fail_on_interruption` uses of a step context."""

    def __init__(self, cloud: FakeCloud, blind_seconds: float) -> None:
        self.cloud = cloud
        self.platform = platform(spot_watch_seconds=0.005, spot_unobserved_seconds=blind_seconds)


async def watched(cloud: FakeCloud, action: Any, blind_seconds: float = LONG) -> Any:
    context = cast("StepContext[Any, Any]", Watch(cloud, blind_seconds))
    return await fail_on_interruption(context, TARGETS_KEY, "spot", action)


async def error_of(cloud: FakeCloud, work: Work, blind_seconds: float = LONG) -> str:
    """The error of the action, and whether the action has cleaned up when it is raised."""
    seen: object
    (seen,) = await asyncio.gather(watched(cloud, work.run(), blind_seconds), return_exceptions=True)
    assert isinstance(seen, StepError), f"it ended with {seen!r}"
    return f"{seen}" + (", cleaned up" if work.cleaned_up else "")


def test_action_without_interruption_returns_its_result() -> None:
    cloud = WatchedCloud([])
    assert asyncio.run(watched(cloud, Work(cloud.watched).run())) == "done"


def test_interruption_cancels_the_action_and_waits_for_its_cleanup() -> None:
    seen = asyncio.run(error_of(WatchedCloud([], [], ["i-1"]), Work()))
    assert seen == "the cloud reclaims spot instances that this change relies on: i-1, cleaned up"


def test_cloud_that_is_away_for_a_moment_is_tolerated() -> None:
    away = CloudUnavailable("away")
    cloud = WatchedCloud([], away, [], away, [])
    assert asyncio.run(watched(cloud, Work(cloud.watched).run())) == "done"


def test_cloud_that_stays_away_fails_the_action() -> None:
    seen = asyncio.run(error_of(WatchedCloud([], CloudUnavailable("away")), Work(), SHORT))
    assert "the state of the spot instances is unknown" in seen
    assert seen.endswith(": away, cleaned up")


def test_denied_role_fails_the_action() -> None:
    with pytest.raises(RoleDenied):
        asyncio.run(watched(WatchedCloud([], RoleDenied("no")), Work().run()))


def test_error_of_the_action_is_passed_on() -> None:
    async def fail() -> None:
        raise StepError("its own")

    with pytest.raises(StepError, match="its own"):
        asyncio.run(watched(WatchedCloud([]), fail()))


def test_cancellation_ends_the_action_and_the_watch() -> None:
    cloud, work = WatchedCloud([]), Work()

    async def looks_afterwards() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await watched(cloud, work.run())
        looks = cloud.looks
        assert looks > 0
        await asyncio.sleep(0.02)
        return cloud.looks - looks

    assert asyncio.run(looks_afterwards()) == 0
    assert work.cleaned_up
