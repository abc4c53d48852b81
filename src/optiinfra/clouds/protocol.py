"""What the platform asks of a cloud account, whoever runs the cloud."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optiinfra.domain.recommendation import InstanceState, Lifecycle

STEP_TAG = "optiinfra:step"
"""Tag that names the step for which something was created."""

CUSTOMER_TAG = "optiinfra:customer"
"""Tag that names the customer for whom it was created."""


class CloudError(Exception):
    """The cloud refused or failed; the text holds the operation, the cloud's own code and its words."""


class CloudUnavailable(CloudError):  # noqa: N818  named after the condition
    """The cloud did not answer, or asked for patience; trying again may help."""


class InsufficientCapacity(CloudError):  # noqa: N818
    """The cloud has no such instance left, or the account's quota for it is used up."""


class RoleDenied(CloudError):  # noqa: N818
    """The account does not let us take the role, or the role does not allow the operation."""


LaunchSettings = dict[str, Any]
"""What it takes to launch an instance again, in the terms of its cloud's own API, as JSON. No ids of the instance."""


@dataclass(frozen=True, slots=True)
class CloudInstance:
    """One instance as its cloud describes it."""

    instance_id: str
    provider: str
    region: str
    instance_type: str
    lifecycle: Lifecycle
    state: InstanceState
    tags: dict[str, str]


class Cloud(Protocol):
    """One account in one region. Every method raises a `CloudError`."""

    async def instances(self) -> list[CloudInstance]:
        """Every instance, in whatever state."""

    async def ensure_instances(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        """Have `count` pending or running instances made for step `key`; create only those that are missing.

        Safe to call again with the same key after a crash at any point. Returns their ids, sorted.
        """

    async def tagged(self, key: str) -> list[str]:
        """Ids of the pending and running instances made for step `key`, sorted; none that is yet to come."""

    async def interrupted(self, key: str) -> list[str]:
        """Ids of the spot instances made for step `key` that the cloud is about to end, or that have ended; sorted."""

    async def cancel_and_terminate(self, key: str) -> list[str]:
        """Cancel the open requests of step `key` and terminate its instances; returns the ids of the terminated ones.

        Afterwards the step has no instance and will get none. Idempotent; a step without instances is no error.
        """

    async def open_requests(self) -> dict[str, dict[str, str]]:
        """Tags by request id of every step's requests that have no instance yet."""

    async def terminate(self, instance_ids: Sequence[str]) -> None:
        """Terminate these instances and cancel their requests; terminated ones are no error."""

    async def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop these instances and wait until they are stopped; those that are stopped or gone are no error."""

    async def start(self, instance_ids: Sequence[str]) -> list[str]:
        """Start those that are stopped and wait until they run; ids of all that run, sorted. Those gone are skipped."""

    async def launch_settings(self, instance_ids: Sequence[str]) -> dict[str, LaunchSettings]:
        """How to launch each of these instances again, by its id; those that are gone are left out."""

    async def launch_like(self, key: str, settings: LaunchSettings, tags: Mapping[str, str]) -> str:
        """Have one on-demand instance with these settings made for step `key`; its id once it runs.

        Safe to call again with the same key after a crash at any point.
        """

    async def spot_quote(self, instance_type: str) -> float | None:
        """The cloud's present spot price in dollars an hour in its cheapest zone, plausible or not."""
