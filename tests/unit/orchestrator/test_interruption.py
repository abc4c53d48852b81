"""A step beside which the cloud is watched."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from optiinfra.clouds.protocol import CloudUnavailable, RoleDenied
from optiinfra.orchestrator.optimizations.interruption import unless_interrupted
from optiinfra.orchestrator.optimizations.run import Run, StepError

KEY = "opt_1:targets"
LONG, SHORT = 60.0, 0.05


class Cloud:
    """Says at each look what the next of its answers is, the last one for ever; `watched` after six looks."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.looks = 0
        self.watched = asyncio.Event()

    async def interrupted(self, key: str) -> list[str]:
        assert key == KEY
        self.looks += 1
        if self.looks == 6:
            self.watched.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_on(cloud: Cloud, blind_seconds: float) -> Run:
    settings = SimpleNamespace(spot_watch_seconds=0.005, spot_blind_seconds=blind_seconds)
    return cast("Run", SimpleNamespace(cloud=cloud, platform=SimpleNamespace(settings=settings)))


class Work:
    """Something that takes until an event, by default for ever, and that clears up when it is stopped."""

    def __init__(self, done: asyncio.Event | None = None) -> None:
        self.done, self.cleared_up = done or asyncio.Event(), False

    async def do(self) -> str:
        try:
            async with asyncio.timeout(5):
                await self.done.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.cleared_up = True
            raise
        return "done"


async def carried_out(cloud: Cloud, work: Work, blind_seconds: float = LONG) -> Any:
    return await unless_interrupted(run_on(cloud, blind_seconds), KEY, work.do())


async def outcome(cloud: Cloud, work: Work, blind_seconds: float = LONG) -> str:
    """What came of it in words, an error's too, as soon as it is over."""
    seen: object
    (seen,) = await asyncio.gather(carried_out(cloud, work, blind_seconds), return_exceptions=True)
    return f"{type(seen).__name__}: {seen}" + (", cleared up" if work.cleared_up else "")


def test_an_action_that_nothing_interrupts_is_carried_out() -> None:
    cloud = Cloud([])
    assert asyncio.run(carried_out(cloud, Work(cloud.watched))) == "done"


def test_an_interruption_ends_the_action_which_has_cleared_up_by_then() -> None:
    seen = asyncio.run(outcome(Cloud([], [], ["i-1"]), Work()))
    assert seen == "StepError: the cloud takes back spot instances that this relies on: i-1, cleared up"


def test_a_cloud_that_does_not_answer_for_a_moment_is_borne_with() -> None:
    away = CloudUnavailable("away")
    cloud = Cloud([], away, [], away, [])
    assert asyncio.run(carried_out(cloud, Work(cloud.watched))) == "done"


def test_nobody_relies_on_what_cannot_be_seen_for_long() -> None:
    seen = asyncio.run(outcome(Cloud([], CloudUnavailable("away")), Work(), SHORT))
    assert "it could not be seen whether spot instances stay: away, cleared up" in seen


def test_a_role_that_is_gone_ends_the_action() -> None:
    with pytest.raises(RoleDenied):
        asyncio.run(carried_out(Cloud([], RoleDenied("no")), Work()))


def test_what_the_action_itself_says_is_passed_on() -> None:
    async def fails() -> None:
        raise StepError("its own")

    with pytest.raises(StepError, match="its own"):
        asyncio.run(unless_interrupted(run_on(Cloud([]), LONG), KEY, fails()))


def test_stopping_it_stops_the_action_and_the_watch() -> None:
    cloud, work = Cloud([]), Work()

    async def stopped() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await carried_out(cloud, work)
        looks = cloud.looks
        assert looks > 0
        await asyncio.sleep(0.02)
        return cloud.looks - looks

    assert asyncio.run(stopped()) == 0
    assert work.cleared_up
