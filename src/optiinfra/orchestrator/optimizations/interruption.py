"""Spot instances that the cloud takes back in the middle of a change: noticed within the notice that it gives."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

from optiinfra.clouds.protocol import CloudUnavailable
from optiinfra.orchestrator.optimizations.run import Run, StepError

T = TypeVar("T")


async def unless_interrupted(run: Run, key: str, action: Coroutine[Any, Any, T]) -> T:
    """What `action` returns; raises StepError as soon as the cloud takes back an instance made for step `key`.

    The action is cancelled then, and is at its end when this raises: whoever undoes it meets nothing half done.
    """
    acting, watching = asyncio.ensure_future(action), asyncio.ensure_future(_watch(run, key))
    try:
        await asyncio.wait((acting, watching), return_when=asyncio.FIRST_COMPLETED)
        return acting.result() if acting.done() else watching.result()
    finally:
        acting.cancel()
        watching.cancel()
        await asyncio.gather(acting, watching, return_exceptions=True)


async def refuse_interrupted(run: Run, key: str) -> None:
    """Raise StepError when the cloud takes back an instance made for step `key`."""
    if taken := await run.cloud.interrupted(key):
        raise _taken_back(taken)


async def _watch(run: Run, key: str) -> NoReturn:
    """Look now and again. A cloud that does not answer is borne with, but not for as long as a notice lasts."""
    settings = run.platform.settings
    seen = time.monotonic()
    while True:
        try:
            await refuse_interrupted(run, key)
            seen = time.monotonic()
        except CloudUnavailable as error:
            if time.monotonic() - seen > settings.spot_blind_seconds:
                blind = f"for {settings.spot_blind_seconds:.0f} s it could not be seen whether spot instances stay"
                raise StepError(f"{blind}: {error}") from error
        await asyncio.sleep(settings.spot_watch_seconds)


def _taken_back(instance_ids: Sequence[str]) -> StepError:
    return StepError(f"the cloud takes back spot instances that this relies on: {', '.join(instance_ids)}")
