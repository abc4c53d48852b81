"""Calls to the EC2 API in one account and region: retried where that is safe, errors translated to CloudError."""

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from optiinfra.clouds.aws_clients import RoleClients, in_thread, translate_errors
from optiinfra.clouds.protocol import STEP_TAG, CloudUnavailable
from optiinfra.clouds.retries import retry

Shape = dict[str, Any]
"""A structure of the EC2 API, with EC2's own names."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of EC2 operations, in seconds."""

    outage: float = 30.0
    """For retries of a repeatable call while EC2 is unavailable."""
    fulfilment: float = 120.0
    """For a spot request to get its instance."""
    termination: float = 60.0
    """For a cancelled request to close, and for a terminated instance to shut down."""
    power: float = 300.0
    """For instances to stop or start; EC2 forces a stop after some minutes."""
    poll: float = 0.5
    """Pause between two attempts or polls."""


DEFAULT_TIMEOUTS = Timeouts()


class Ec2Api:
    """One region's EC2 as seen by an assumed role."""

    def __init__(self, clients: RoleClients, timeouts: Timeouts) -> None:
        self.ec2, self.launch, self.timeouts = clients.ec2, clients.launch, timeouts
        self._clients = clients

    async def call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an operation that may be repeated; retries while EC2 is unavailable."""
        attempt = functools.partial(self._call_once, operation, *args, **kwargs)
        return await retry(attempt, self.timeouts.outage, CloudUnavailable, pause=self.timeouts.poll)

    async def call_to_completion(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call once; if cancelled, wait for the end first, so that a cleanup sees everything that was created."""
        task = asyncio.create_task(self._call_once(operation, *args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def instances(self, *filters: Shape) -> list[Shape]:
        """All instances that match the filters, each with the account that owns it (`OwnerId`)."""

        def pages() -> list[Shape]:
            paginator = self.ec2.get_paginator("describe_instances")
            return [
                instance | {"OwnerId": reservation["OwnerId"]}
                for page in paginator.paginate(Filters=list(filters))
                for reservation in page["Reservations"]
                for instance in reservation["Instances"]
            ]

        return await self.call(pages)

    async def instance_ids(self, instance_ids: Iterable[str], states: Iterable[str]) -> list[str]:
        """Those of these instances that are in one of these states, sorted."""
        found = await self.instances(id_filter(instance_ids), state_filter(states))
        return sorted(instance["InstanceId"] for instance in found)

    async def spot_requests(self, *filters: Shape) -> list[Shape]:
        """All spot requests that match the filters."""

        def pages() -> list[Shape]:
            paginator = self.ec2.get_paginator("describe_spot_instance_requests")
            pages = paginator.paginate(Filters=list(filters))
            return [request for page in pages for request in page["SpotInstanceRequests"]]

        return await self.call(pages)

    async def _call_once(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(translate_errors(self._clients.acting(operation)), *args, **kwargs)


def step_filter(key: str) -> Shape:
    """What is tagged for step `key`."""
    return {"Name": f"tag:{STEP_TAG}", "Values": [key]}


def state_filter(states: Iterable[str]) -> Shape:
    """Instances in one of these states."""
    return {"Name": "instance-state-name", "Values": list(states)}


def id_filter(instance_ids: Iterable[str]) -> Shape:
    """These instances."""
    return {"Name": "instance-id", "Values": list(instance_ids)}


def tags_of(resource: Shape) -> dict[str, str]:
    """Tags of a described instance or spot request."""
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}


def tag_list(tags: Mapping[str, str]) -> list[Shape]:
    """Tags in EC2's own form."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]
