"""The operations that the platform needs of a cloud account, independent of the provider."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optiinfra.domain.recommendation import InstanceState, Lifecycle

STEP_TAG = "optiinfra:step"
"""Tag with the key of the optimization step that something was created for."""

CUSTOMER_TAG = "optiinfra:customer"
"""Tag with the id of the customer that something was created for."""


class CloudError(Exception):
    """The cloud refused a call or failed; the text has the operation, the cloud's error code and message."""


class CloudUnavailable(CloudError):  # noqa: N818  named after the condition
    """The cloud did not answer, or reported a temporary error; a retry may succeed."""


class InsufficientCapacity(CloudError):  # noqa: N818
    """The cloud has no capacity for this instance type, or the account's quota is used up."""


class RoleDenied(CloudError):  # noqa: N818
    """The role cannot be assumed, or does not allow the operation."""


class NotCovered(CloudError):  # noqa: N818
    """An approved change does not cover an instance that it would affect."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an approved change may stop, start and terminate: the instances that it was approved for, and its own."""

    optimization_id: str
    source_ids: frozenset[str]

    def covers(self, instance_id: str, tags: Mapping[str, str]) -> bool:
        """Whether it may affect this instance; those of its own have a tag with the key of one of its steps."""
        return instance_id in self.source_ids or tags.get(STEP_TAG, "").startswith(f"{self.optimization_id}:")


LaunchSettings = dict[str, Any]
"""Parameters to launch an equal instance, as JSON in the terms of the cloud's own API. No ids of the instance."""


@dataclass(frozen=True, slots=True)
class CloudInstance:
    """One instance as described by its cloud."""

    instance_id: str
    provider: str
    region: str
    instance_type: str
    lifecycle: Lifecycle
    state: InstanceState
    tags: dict[str, str]


class Cloud(Protocol):
    """One account in one region. Every method may raise a CloudError. A step's `key` is its idempotency key."""

    async def instances(self) -> list[CloudInstance]:
        """Every instance, in whatever state."""

    async def ensure_instances(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        """Ensure `count` pending or running instances of step `key`; launch only those that are missing.

        Idempotent, even after a crash at any point. Returns their ids, sorted.
        """

    async def tagged_instances(self, key: str) -> list[str]:
        """Ids of the pending and running instances of step `key`, sorted. Does not wait for open requests."""

    async def interrupted_instances(self, key: str) -> list[str]:
        """Ids of the spot instances of step `key` that the cloud reclaims, or that have ended; sorted."""

    async def cancel_and_terminate(self, key: str) -> list[str]:
        """Cancel the open requests of step `key` and terminate its instances; returns the ids of the terminated ones.

        Afterwards the step has no instance and will get none. Idempotent; a step without instances is no error.
        """

    async def open_requests(self) -> dict[str, dict[str, str]]:
        """Tags by request id of every step's requests that have no instance yet."""

    async def terminate(self, change: Change, instance_ids: Sequence[str]) -> None:
        """Terminate these instances and cancel their requests; terminated ones are no error.

        Like `stop` and `start` it reads the instances first, and raises NotCovered, before it changes any, if one
        belongs to another account or is not covered by the change.
        """

    async def stop(self, change: Change, instance_ids: Sequence[str]) -> None:
        """Stop these instances and wait until they are stopped; stopped and terminated ones are no error."""

    async def start(self, change: Change, instance_ids: Sequence[str]) -> list[str]:
        """Start the stopped ones and wait until they run; ids of all that run, sorted. Terminated ones are skipped."""

    async def launch_settings(self, instance_ids: Sequence[str]) -> dict[str, LaunchSettings]:
        """Launch settings of each of these instances by its id, without terminated ones."""

    async def launch_like(self, key: str, settings: LaunchSettings, tags: Mapping[str, str]) -> str:
        """Ensure one on-demand instance of step `key` with these settings; its id once it runs.

        Idempotent, even after a crash at any point.
        """

    async def spot_quote(self, instance_type: str) -> float | None:
        """The cloud's current spot price in its cheapest zone, dollars an hour; it may be implausible."""
