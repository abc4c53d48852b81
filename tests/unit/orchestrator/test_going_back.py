"""What the cloud is asked again for while a change is undone."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from optiinfra.clouds.protocol import CloudError, CloudUnavailable, InsufficientCapacity, RoleDenied
from optiinfra.orchestrator.optimizations.workflow import going_back
from optiinfra.orchestrator.settings import Settings

SETTINGS = cast("Settings", SimpleNamespace(undo_patience_seconds=5.0))


class Cloud:
    """Refuses once."""

    def __init__(self, refusal: CloudError) -> None:
        self.refusal: CloudError | None = refusal

    async def ask(self) -> str:
        refusal, self.refusal = self.refusal, None
        if refusal is not None:
            raise refusal
        return "done"


@pytest.mark.parametrize(
    "refusal", [CloudUnavailable("away"), RoleDenied("no"), InsufficientCapacity("none"), CloudError("wrong")]
)
def test_going_back_is_not_given_up_because_the_cloud_says_no(refusal: CloudError) -> None:
    cloud = Cloud(refusal)

    async def back() -> object:
        (seen,) = await asyncio.gather(going_back(cloud.ask, SETTINGS), return_exceptions=True)
        return seen

    assert asyncio.run(back()) == "done", "given up at once"
