"""Detection of spot interruptions during the notice period."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

from optiinfra.clouds.protocol import CloudUnavailable
from optiinfra.domain.recommendation import Lifecycle
from optiinfra.kit.tasks import first_completed
from optiinfra.orchestrator.optimizations.context import StepContext, StepError

T = TypeVar("T")


async def fail_on_interruption(
    context: StepContext[Any, Any], key: str, lifecycle: Lifecycle, action: Coroutine[Any, Any, T]
) -> T:
    """What `action` returns; raises StepError as soon as the cloud reclaims an instance created for `key`.

    The action is then cancelled, and has ended when this raises, so that a rollback runs alone. Only spot instances
    are watched.
    """
    if lifecycle != "spot":
        return await action
    return await first_completed(action, _watch(context, key))


async def require_uninterrupted(context: StepContext[Any, Any], key: str) -> None:
    """Raise StepError when the cloud has reclaimed, or is about to reclaim, an instance created for `key`."""
    if reclaimed := await context.cloud.interrupted_instances(key):
        raise _interrupted(reclaimed)


async def _watch(context: StepContext[Any, Any], key: str) -> NoReturn:
    """Poll. An unavailable cloud is tolerated for less than the notice period."""
    settings = context.platform.settings
    last_seen = time.monotonic()
    while True:
        try:
            await require_uninterrupted(context, key)
            last_seen = time.monotonic()
        except CloudUnavailable as error:
            if time.monotonic() - last_seen > settings.spot_unobserved_seconds:
                unknown = f"the state of the spot instances is unknown for {settings.spot_unobserved_seconds:.0f} s"
                raise StepError(f"{unknown}: {error}") from error
        await asyncio.sleep(settings.spot_watch_seconds)


def _interrupted(instance_ids: Sequence[str]) -> StepError:
    return StepError(f"the cloud reclaims spot instances that this change relies on: {', '.join(instance_ids)}")
