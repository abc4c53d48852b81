"""Runs that concurrent calls share."""

import asyncio

import pytest

from optiinfra.kit.shared_runs import SharedRuns

pytestmark = pytest.mark.anyio


class Source:
    """Counts its reads; each reads the number of the present version, and ends when it is released."""

    def __init__(self) -> None:
        self.version, self.reads = 0, 0
        self.release = asyncio.Event()

    async def read(self) -> int:
        self.reads += 1
        version = self.version
        await self.release.wait()
        return version


async def started(*calls: "asyncio.Task[int]") -> None:
    """Let the calls begin, and read what they read: tasks are run in the order of their creation."""
    for _ in calls:
        await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.fixture
async def source() -> Source:
    return Source()


async def test_calls_during_a_run_share_the_next_one(source: Source) -> None:
    runs = SharedRuns[int]()
    first = asyncio.create_task(runs.run("key", source.read))
    await started(first)
    source.version = 1
    later = [asyncio.create_task(runs.run("key", source.read)) for _ in range(5)]
    await started(first, *later)
    assert source.reads == 1
    source.release.set()
    assert await asyncio.gather(first, *later) == [0, 1, 1, 1, 1, 1]
    assert source.reads == 2


async def test_call_during_a_slow_run_does_not_wait_for_its_end(source: Source) -> None:
    async def read_again() -> int:
        return 1

    runs = SharedRuns[int](slow_seconds=0.01)
    slow = asyncio.create_task(runs.run("key", source.read))
    await started(slow)
    again = asyncio.create_task(runs.run("key", read_again))
    await asyncio.wait((again,), timeout=10)
    assert (again.done(), slow.done()) == (True, False)
    assert await again == 1
    source.release.set()
    assert await slow == 0


async def test_calls_with_other_keys_do_not_wait(source: Source) -> None:
    runs = SharedRuns[int]()
    calls = [asyncio.create_task(runs.run(key, source.read)) for key in ("one", "two")]
    await started(*calls)
    assert source.reads == 2
    source.release.set()
    await asyncio.gather(*calls)


async def test_call_after_a_run_has_ended_begins_another(source: Source) -> None:
    runs = SharedRuns[int]()
    source.release.set()
    assert await runs.run("key", source.read) == 0
    source.version = 1
    assert await runs.run("key", source.read) == 1


async def test_exception_of_a_run_is_raised_to_each_call_and_the_next_call_begins_another(source: Source) -> None:
    async def fail() -> int:
        await source.read()
        raise ValueError("wrong")

    runs = SharedRuns[int]()
    source.release.set()
    failed = await asyncio.gather(*(runs.run("key", fail) for _ in range(2)), return_exceptions=True)
    assert [str(error) for error in failed] == ["wrong", "wrong"]
    assert await runs.run("key", source.read) == 0


async def test_cancelled_call_leaves_the_run_to_the_others(source: Source) -> None:
    runs = SharedRuns[int]()
    calls = [asyncio.create_task(runs.run("key", source.read)) for _ in range(2)]
    await started(*calls)
    calls[0].cancel()
    source.release.set()
    assert await calls[1] == 0
    assert calls[0].cancelled()
    assert source.reads == 1
