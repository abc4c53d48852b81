import asyncio

import pytest

from optiinfra.clouds.protocol import CloudError, CloudUnavailable, RoleDenied
from optiinfra.clouds.retries import retry


class FailingCall:
    """Raises the given errors, one per call, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def run(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_retry_of_temporary_error_returns_result() -> None:
    call = FailingCall(CloudUnavailable("1"), CloudUnavailable("2"))
    assert asyncio.run(retry(call.run, 5.0, CloudUnavailable, pause=0.0)) == "done"


def test_retry_of_function_that_returns_an_awaitable_returns_result() -> None:
    call = FailingCall(CloudUnavailable("1"))
    assert asyncio.run(retry(lambda: call.run(), 5.0, CloudUnavailable, pause=0.0)) == "done"


def test_retry_after_deadline_raises_last_error() -> None:
    call = FailingCall(*(CloudUnavailable(str(number)) for number in range(1000)))
    with pytest.raises(CloudUnavailable) as raised:
        asyncio.run(retry(call.run, 0.5, pause=0.1))
    calls = 1000 - len(call.errors)
    assert 1 < calls < 10
    assert str(raised.value) == str(calls - 1)


@pytest.mark.parametrize(("errors", "calls"), [(CloudUnavailable, 1), (CloudError, 2)])
def test_retry_of_other_error_raises_it_at_once(errors: type[CloudError], calls: int) -> None:
    call = FailingCall(RoleDenied("no"), RoleDenied("no"))
    with pytest.raises(RoleDenied):
        asyncio.run(retry(call.run, 0.5, errors, pause=0.3))
    assert 2 - len(call.errors) == calls


def test_retry_when_cancelled_ends_without_another_attempt() -> None:
    call = FailingCall(*(CloudUnavailable(str(number)) for number in range(1000)))

    async def cancel_in_pause() -> None:
        retrying = asyncio.create_task(retry(call.run, 60.0, pause=30.0))
        async with asyncio.timeout(5):
            while len(call.errors) == 1000:  # noqa: ASYNC110
                await asyncio.sleep(0)
        retrying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await retrying

    asyncio.run(cancel_in_pause())
    assert len(call.errors) == 999
