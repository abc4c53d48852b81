import asyncio

import pytest

from optiinfra.kit.retries import DeadlineError, retry_until_deadline

pytestmark = pytest.mark.anyio


async def test_retry_until_deadline_returns_first_result() -> None:
    errors = [OSError("refused"), ValueError("not yet")]

    async def attempt() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert await retry_until_deadline(attempt, "the server", 30.0, interval=0.0) == "done"


async def test_retry_until_deadline_after_deadline_names_last_error() -> None:
    calls = 0

    async def attempt() -> None:
        nonlocal calls
        calls += 1
        raise OSError(f"refused {calls}")

    with pytest.raises(DeadlineError) as raised:
        await retry_until_deadline(attempt, "the server", 0.3, interval=0.05)
    assert 1 < calls < 8
    assert str(raised.value) == f"the server did not answer within 0 s; last error: OSError: refused {calls}"
    assert isinstance(raised.value.__cause__, OSError)


async def test_retry_until_deadline_of_hanging_attempt_cancels_it() -> None:
    cancelled = False

    async def attempt() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    async with asyncio.timeout(10):
        with pytest.raises(DeadlineError, match="last error: TimeoutError"):
            await retry_until_deadline(attempt, "the server", 0.1, interval=0.05)
    assert cancelled


async def test_retry_until_deadline_when_cancelled_ends() -> None:
    started = asyncio.Event()

    async def attempt() -> None:
        started.set()
        await asyncio.Event().wait()

    retrying = asyncio.create_task(retry_until_deadline(attempt, "the server", 30.0))
    async with asyncio.timeout(5):
        await started.wait()
    retrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await retrying
