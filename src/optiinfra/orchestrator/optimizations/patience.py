"""For how long the cloud is asked again before the undoing of a step counts as failed."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from optiinfra.clouds.patience import patiently
from optiinfra.orchestrator.settings import Settings

T = TypeVar("T")


async def going_back(attempt: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """Try again whatever the cloud says: half undone is the worst of all ends, and roles and capacity come back."""
    return await patiently(attempt, settings.undo_patience_seconds)
