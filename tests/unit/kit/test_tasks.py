"""Races of coroutines, and tasks that nobody waits for."""

import asyncio

import pytest

from optiinfra.kit import tasks
from optiinfra.kit.tasks import cancel_in_background, first_completed
from optiinfra.stores.errors import StoreUnavailable
from tests.unit.logs import logged

pytestmark = pytest.mark.anyio


class Forever:
    """A coroutine that ends by cancellation only, and takes a moment to clean up."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cleaned_up = False

    async def run(self) -> str:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.cleaned_up = True
        return "never"


async def returning(value: str) -> str:
    return value


async def failing() -> str:
    raise ValueError("wrong")


async def test_first_completed_returns_result_and_ends_the_others() -> None:
    other = Forever()
    assert await first_completed(other.run(), returning("done")) == "done"
    assert other.cleaned_up


async def test_first_completed_of_several_at_once_returns_the_earliest_argument() -> None:
    assert await first_completed(returning("one"), returning("two")) == "one"


async def test_first_completed_raises_exception_of_the_first_and_ends_the_others() -> None:
    other = Forever()
    with pytest.raises(ValueError, match="wrong"):
        await first_completed(other.run(), failing())
    assert other.cleaned_up


async def test_first_completed_ignores_exceptions_of_the_others() -> None:
    async def failing_when_cancelled() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("wrong") from None
        return "never"

    assert await first_completed(failing_when_cancelled(), returning("done")) == "done"


async def test_first_completed_cancelled_ends_all() -> None:
    one, two = Forever(), Forever()
    race = asyncio.ensure_future(first_completed(one.run(), two.run()))
    async with asyncio.timeout(5):
        await one.started.wait()
        await two.started.wait()
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert (one.cleaned_up, two.cleaned_up) == (True, True)


@pytest.mark.parametrize(
    ("error", "levels"), [(RuntimeError("defect"), ["error"]), (StoreUnavailable("Redis does not answer"), [])]
)
async def test_cancel_in_background_logs_failure_unless_store_is_unavailable(
    error: Exception, levels: list[str]
) -> None:
    started = asyncio.Event()

    async def failing_when_cancelled() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    with logged(tasks) as logs:
        task = asyncio.ensure_future(failing_when_cancelled())
        async with asyncio.timeout(5):
            await started.wait()
        cancel_in_background(task)
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)  # done callbacks run in the next iteration of the loop
    assert [entry["log_level"] for entry in logs] == levels
