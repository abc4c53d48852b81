"""Accounts that the platform has entered."""

import threading
from typing import NamedTuple

from cachetools import LRUCache

from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.aws_api import DEFAULT_TIMEOUTS, Timeouts
from optiinfra.clouds.aws_clients import in_thread, role_clients
from optiinfra.clouds.protocol import CloudUnavailable
from optiinfra.clouds.retries import retry


class _Entrance(NamedTuple):
    endpoint_url: str | None
    region: str
    role_arn: str
    external_id: str
    access_key_id: str
    secret_access_key: str


_entered: "LRUCache[tuple[_Entrance, Timeouts], AwsCloud]" = LRUCache(4096)
"""Entering takes two calls to STS; what is kept of it takes a few kilobytes. Failures are not kept."""
_LOCK = threading.Lock()


async def connect_aws(
    endpoint_url: str | None,
    region: str,
    role_arn: str,
    external_id: str,
    access_key_id: str,
    secret_access_key: str,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> AwsCloud:
    """The account of `role_arn`, entered with the platform's own keys; the same arguments give the same object.

    Raises RoleDenied if the role cannot be assumed. Credentials renew themselves before they expire.
    """
    entrance = _Entrance(endpoint_url, region, role_arn, external_id, access_key_id, secret_access_key)
    with _LOCK:
        known = _entered.get((entrance, timeouts))
    if known is not None:
        return known
    clients = await retry(
        lambda: in_thread(role_clients, *entrance), timeouts.outage, CloudUnavailable, pause=timeouts.poll
    )
    with _LOCK:
        return _entered.setdefault((entrance, timeouts), AwsCloud(clients, region, timeouts))


def forget(external_id: str) -> None:
    """Forget the roles that are assumed with this external id, and their credentials: their customer was deleted."""
    with _LOCK:
        for known in [each for each in _entered if each[0].external_id == external_id]:
            del _entered[known]
