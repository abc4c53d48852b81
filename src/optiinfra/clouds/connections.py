"""AWS accounts whose roles the platform has assumed, with their credentials."""

import threading
from typing import NamedTuple

from cachetools import LRUCache

from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.aws_api import DEFAULT_TIMEOUTS, Timeouts
from optiinfra.clouds.aws_clients import in_thread, role_clients
from optiinfra.clouds.protocol import CloudUnavailable
from optiinfra.clouds.retries import retry


class _AssumedRole(NamedTuple):
    endpoint_url: str | None
    region: str
    role_arn: str
    external_id: str
    access_key_id: str
    secret_access_key: str


_assumed: "LRUCache[tuple[_AssumedRole, Timeouts], AwsCloud]" = LRUCache(4096)
"""Assuming a role takes two calls to STS, and keeping it a few kilobytes. Failures are not kept."""
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
    """The account of `role_arn`, which the platform's own keys assume; the same arguments give the same object.

    Raises RoleDenied if the role cannot be assumed. Credentials renew themselves before they expire.
    """
    role = _AssumedRole(endpoint_url, region, role_arn, external_id, access_key_id, secret_access_key)
    with _LOCK:
        known = _assumed.get((role, timeouts))
    if known is not None:
        return known
    clients = await retry(
        lambda: in_thread(role_clients, *role), timeouts.outage, CloudUnavailable, pause=timeouts.poll
    )
    with _LOCK:
        return _assumed.setdefault((role, timeouts), AwsCloud(clients, region, timeouts))


def forget(external_id: str) -> None:
    """Forget the roles that are assumed with this external id, and their credentials: their customer was deleted."""
    with _LOCK:
        for known in [each for each in _assumed if each[0].external_id == external_id]:
            del _assumed[known]
