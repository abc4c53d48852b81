"""Retry policy for cloud calls: a fixed pause, a deadline, and the last error when it has passed.

botocore itself retries throttled calls a few times (`aws_clients.py`). This policy is around whole operations, which
poll a state until it is reached (`aws.py`), and around the rollback of a step.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay, wait_fixed

from optiinfra.clouds.protocol import CloudError

log = structlog.get_logger(__name__)

T = TypeVar("T")


async def retry(
    attempt: Callable[[], Awaitable[T]],
    seconds: float,
    errors: type[CloudError] = CloudError,
    *,
    pause: float = 0.5,
) -> T:
    """Call `attempt` until it raises none of `errors`, and return its result.

    The last error is raised when the next attempt would begin more than `seconds` after the first.
    """

    async def call() -> T:
        return await attempt()

    policy = AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_fixed(pause),
        stop=stop_before_delay(seconds),
        before_sleep=_log_retry,
        reraise=True,
    )
    return await policy(call)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.debug("attempt failed, retrying", error=str(error), attempt=state.attempt_number)
