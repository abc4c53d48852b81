import asyncio

import pytest

from optiinfra.clouds.patience import patiently
from optiinfra.clouds.protocol import CloudError, CloudUnavailable, RoleDenied


class Cloud:
    """Raises what it is given, one at each call, then answers."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = list(refusals)

    async def ask(self) -> str:
        if self.refusals:
            raise self.refusals.pop(0)
        return "done"


def test_it_asks_again_until_it_is_answered() -> None:
    cloud = Cloud(CloudUnavailable("1"), CloudUnavailable("2"))
    assert asyncio.run(patiently(cloud.ask, 5.0, CloudUnavailable, pause=0.0)) == "done"


def test_it_ends_with_the_last_refusal() -> None:
    cloud = Cloud(*(CloudUnavailable(str(number)) for number in range(1000)))
    with pytest.raises(CloudUnavailable):
        asyncio.run(patiently(cloud.ask, 0.5, pause=0.1))
    assert 1 < 1000 - len(cloud.refusals) < 10


@pytest.mark.parametrize(("borne_with", "calls"), [(CloudUnavailable, 1), (CloudError, 2)])
def test_only_the_named_refusals_are_borne_with(borne_with: type[CloudError], calls: int) -> None:
    cloud = Cloud(RoleDenied("no"), RoleDenied("no"))
    with pytest.raises(RoleDenied):
        asyncio.run(patiently(cloud.ask, 0.5, borne_with, pause=0.3))
    assert 2 - len(cloud.refusals) == calls
