"""Actions side by side."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def gather_to_end(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run side by side; where one fails, the others end first, so that a rollback sees what they did."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]
