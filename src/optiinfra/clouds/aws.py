"""Amazon EC2 through an assumed role."""

import asyncio
import base64
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from optiinfra.clouds import aws_clients, aws_launch
from optiinfra.clouds.protocol import (
    STEP_TAG,
    CloudError,
    CloudInstance,
    CloudUnavailable,
    InsufficientCapacity,
    LaunchSettings,
)
from optiinfra.clouds.retries import retry
from optiinfra.domain.recommendation import InstanceState, Lifecycle

Shape = dict[str, Any]
"""A structure of the EC2 API under its own names."""

P = ParamSpec("P")
T = TypeVar("T")

_FULFILMENT_DEADLINE = 120.0
_TERMINATION_DEADLINE = 60.0
_POWER_DEADLINE = 300.0
"""How long instances may take to stop or to start; EC2 forces a stop after some minutes."""
_POLL_SECONDS = 0.5
_AWAY_SECONDS = 30.0
"""How long EC2 may be away before a call that can be repeated is given up."""
_ORDER_TRIES = 3

_STATES: dict[str, InstanceState] = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopped",
    "stopped": "stopped",
    "shutting-down": "terminated",
    "terminated": "terminated",
}
_ALIVE = ["pending", "running"]
_NOT_ENDED = ["pending", "running", "stopping", "stopped"]
_ENDING = ["shutting-down", "terminated", "stopping", "stopped"]
_TAKEN_BACK = ("marked-for-", "instance-terminated-", "instance-stopped-")
"""How the status of a spot request begins whose instance is, or was, taken back."""


async def connect_aws(
    endpoint_url: str | None,
    region: str,
    role_arn: str,
    external_id: str | None,
    access_key_id: str,
    secret_access_key: str,
) -> "AwsCloud":
    """The account that `role_arn` belongs to, entered with the platform's own keys; asked twice, the same object.

    RoleDenied when the account does not let us take the role. Credentials renew themselves before they expire.
    """
    account = (endpoint_url, region, role_arn, external_id, access_key_id, secret_access_key)
    return await retry(
        lambda: asyncio.to_thread(_connect, *account), _AWAY_SECONDS, CloudUnavailable, pause=_POLL_SECONDS
    )


# Entering takes a call to STS and three clients, about 3 MB; roles and regions are few. A failure is not kept.
@functools.lru_cache(maxsize=256)
def _connect(
    endpoint_url: str | None,
    region: str,
    role_arn: str,
    external_id: str | None,
    access_key_id: str,
    secret_access_key: str,
) -> "AwsCloud":
    ec2, orders = aws_clients.in_role(endpoint_url, region, role_arn, external_id, access_key_id, secret_access_key)
    return AwsCloud(ec2, orders, region)


class AwsCloud:
    """One AWS account in one region (`clouds.protocol.Cloud`)."""

    def __init__(self, ec2: Any, orders: Any, region: str) -> None:
        """`ec2` repeats what fails on the way; `orders`, for what creates, must not."""
        self._ec2, self._orders = ec2, orders
        self.region = region

    async def instances(self) -> list[CloudInstance]:
        """Every instance in the region, terminated ones too as long as EC2 shows them."""
        return [self._described(instance) for instance in await self._describe([])]

    async def ensure_instances(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        """Have `count` living instances made for step `key`; create only those that are missing.

        InsufficientCapacity when a spot request found no instance in time; what had none is cancelled then.
        """
        found = await self._settled(key)
        tries = _ORDER_TRIES
        while len(found) < count:
            try:
                ordered = await self._order(key, instance_type, count - len(found), lifecycle, tags)
            except CloudUnavailable:
                # What was not answered may have been carried out: only what is missing after a look is ordered again.
                await asyncio.sleep(_POLL_SECONDS)
                found = await self._settled(key)
                tries -= 1
                if tries == 0 and len(found) < count:
                    raise
            else:
                return await self._settled(key, ordered)
        return found

    async def tagged(self, key: str) -> list[str]:
        """Ids of the living instances made for step `key`, sorted. Requests without an instance are not waited for.

        A spot request carries the tags from its first moment, its instance only once we give them to it: instances
        whose request is tagged, cancelled though it may be, are tagged here, in case the one who asked for them was
        stopped in between.
        """
        found = {instance["InstanceId"] for instance in await self._describe([_made_for(key), _state_filter(_ALIVE)])}
        requests = await self._spot_requests([_made_for(key)])
        untagged = {
            request["InstanceId"]: request["Tags"]
            for request in requests
            if request.get("InstanceId") and request["InstanceId"] not in found
        }
        for instance in await self._describe([_id_filter(untagged), _state_filter(_ALIVE)]) if untagged else []:
            instance_id = instance["InstanceId"]
            await self._call(self._ec2.create_tags, Resources=[instance_id], Tags=untagged[instance_id])
            found.add(instance_id)
        return sorted(found)

    async def interrupted(self, key: str) -> list[str]:
        """Ids of the spot instances made for step `key` that EC2 is about to end, or that have ended; sorted.

        An instance that EC2 does not show is not one that has ended: new ones appear with a delay.
        """
        requests = await self._spot_requests([_made_for(key)])
        made = {one["InstanceId"]: one["Status"]["Code"] for one in requests if one.get("InstanceId")}
        ended = await self._describe([_id_filter(made), _state_filter(_ENDING)]) if made else []
        taken = {instance_id for instance_id, status in made.items() if status.startswith(_TAKEN_BACK)}
        return sorted(taken | {instance["InstanceId"] for instance in ended})

    async def cancel_and_terminate(self, key: str) -> list[str]:
        """Cancel the open spot requests of step `key`, then terminate its instances."""

        async def cancelled() -> None:
            if left := await self._cancel_open(key):
                raise CloudUnavailable(f"CancelSpotInstanceRequests: {', '.join(left)} still open")

        await retry(cancelled, _TERMINATION_DEADLINE, pause=_POLL_SECONDS)
        made = await self.tagged(key)  # with what was fulfilled just before the cancellation
        await self.terminate(made)
        return made

    async def open_requests(self) -> dict[str, dict[str, str]]:
        """Tags, by id, of the spot requests without an instance that were made for a step."""
        requests = await self._spot_requests([{"Name": "state", "Values": ["open"]}])
        found = {request["SpotInstanceRequestId"]: _tags(request) for request in requests}
        return {request_id: tags for request_id, tags in found.items() if STEP_TAG in tags}

    async def terminate(self, instance_ids: Sequence[str]) -> None:
        """Cancel the spot requests of these instances, terminate them, and wait until EC2 says so."""
        if not instance_ids:
            return
        requests = await self._spot_requests(
            [
                {"Name": "instance-id", "Values": list(instance_ids)},
                {"Name": "state", "Values": ["open", "active"]},
            ]
        )
        await self._cancel([request["SpotInstanceRequestId"] for request in requests])
        # EC2 forgets a terminated instance after an hour, and one unknown id would fail the whole call.
        if living := await self._still_there(instance_ids):
            ending = functools.partial(self._carried_through, self._ec2.terminate_instances, InstanceIds=living)
            await retry(ending, _AWAY_SECONDS, CloudUnavailable, pause=_POLL_SECONDS)

        async def gone() -> None:
            if left := await self._still_there(instance_ids):
                raise CloudUnavailable(f"TerminateInstances: {', '.join(left)} not shutting down yet")

        await retry(gone, _TERMINATION_DEADLINE, pause=_POLL_SECONDS)

    async def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop the running instances among these, and wait until EC2 says that they are stopped."""
        if running := await self._ids(instance_ids, _ALIVE):
            await self._call(self._ec2.stop_instances, InstanceIds=running)

        async def stopped() -> None:
            if left := await self._ids(instance_ids, [*_ALIVE, "stopping"]):
                raise CloudUnavailable(f"StopInstances: {', '.join(left)} not stopped yet")

        await retry(stopped, _POWER_DEADLINE, pause=_POLL_SECONDS)

    async def start(self, instance_ids: Sequence[str]) -> list[str]:
        """Start the stopped instances among these; the ids of all that run then, sorted."""

        async def running() -> list[str]:
            if stopped := await self._ids(instance_ids, ["stopped"]):
                await self._call(self._ec2.start_instances, InstanceIds=stopped)
            if left := await self._ids(instance_ids, ["pending", "stopping", "stopped"]):
                raise CloudUnavailable(f"StartInstances: {', '.join(left)} not running yet")
            return await self._ids(instance_ids, ["running"])

        return await retry(running, _POWER_DEADLINE, pause=_POLL_SECONDS)

    async def launch_settings(self, instance_ids: Sequence[str]) -> dict[str, LaunchSettings]:
        """Parameters of RunInstances for each of these instances that is not terminated, by its id."""
        found: dict[str, LaunchSettings] = {}
        there = [_id_filter(instance_ids), _state_filter(_NOT_ENDED)]
        for instance in await self._describe(there) if instance_ids else []:
            instance_id = instance["InstanceId"]
            answer = await self._call(
                self._ec2.describe_instance_attribute, InstanceId=instance_id, Attribute="userData"
            )
            found[instance_id] = aws_launch.launch_settings(instance, answer.get("UserData", {}).get("Value"))
        return found

    async def launch_like(self, key: str, settings: LaunchSettings, tags: Mapping[str, str]) -> str:
        """Have one running on-demand instance with these settings, tagged for step `key`."""

        async def launched() -> str:
            if not await self._describe([_made_for(key), _state_filter(_NOT_ENDED)]):
                await self._run_instances(key, 1, settings, tags)
            running = await self._describe([_made_for(key), _state_filter(["running"])])
            if not running:
                raise CloudUnavailable(f"RunInstances: the instance made for {key} is not running yet")
            instance_id: str = running[0]["InstanceId"]
            return instance_id

        return await retry(launched, _POWER_DEADLINE, pause=_POLL_SECONDS)

    async def spot_quote(self, instance_type: str) -> float | None:
        """The present spot price in the region's cheapest zone, dollars an hour; None when EC2 has none."""
        answer = await self._call(
            self._ec2.describe_spot_price_history,
            InstanceTypes=[instance_type],
            ProductDescriptions=["Linux/UNIX", "Linux/UNIX (Amazon VPC)"],
            StartTime=datetime.now(UTC),
        )
        return min((float(point["SpotPrice"]) for point in answer["SpotPriceHistory"]), default=None)

    async def _order(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        """Order that many instances more; the ids of the spot requests made for it."""
        image = await self._image(instance_type)
        if lifecycle == "spot":
            answer = await self._carried_through(
                self._orders.request_spot_instances,
                InstanceCount=count,
                Type="one-time",
                LaunchSpecification={"ImageId": image, "InstanceType": instance_type},
                ClientToken=_token(key, await self._spot_requests([_made_for(key)])),
                TagSpecifications=[
                    {"ResourceType": "spot-instances-request", "Tags": _tag_list({**tags, STEP_TAG: key})}
                ],
            )
            return [request["SpotInstanceRequestId"] for request in answer["SpotInstanceRequests"]]
        await self._run_instances(key, count, {"ImageId": image, "InstanceType": instance_type}, tags)
        return []

    async def _run_instances(self, key: str, count: int, settings: LaunchSettings, tags: Mapping[str, str]) -> None:
        """Launch on-demand instances for step `key`; `settings` may have tags of their own."""
        parameters = {name: value for name, value in settings.items() if name != "Tags"}
        if "UserData" in parameters:  # boto3 encodes it itself
            parameters["UserData"] = base64.b64decode(parameters["UserData"])
        every_tag = {**settings.get("Tags", {}), **tags, STEP_TAG: key}
        await self._carried_through(
            self._orders.run_instances,
            **parameters,
            MinCount=count,
            MaxCount=count,
            ClientToken=_token(key, await self._describe([_made_for(key)])),
            TagSpecifications=[{"ResourceType": "instance", "Tags": _tag_list(every_tag)}],
        )

    async def _settled(self, key: str, ordered: Sequence[str] = ()) -> list[str]:
        """The step's instances, once the spot requests `ordered` (or what an earlier try left open) have theirs."""
        if waiting := ordered or await self._open_requests(key):
            try:
                await self._fulfilled(waiting)
            except BaseException as reason:
                # Nobody waits for them any more, so they must not come later. What did come is found by its tag.
                try:
                    await self._cancel_open(key)
                except CloudError as error:
                    reason.add_note(f"what was still open could not be cancelled: {error}")
                raise
        return await self.tagged(key)

    async def _fulfilled(self, request_ids: Sequence[str]) -> None:
        """Wait until each request has an instance."""

        async def look() -> None:
            requests = await self._spot_requests([{"Name": "spot-instance-request-id", "Values": list(request_ids)}])
            waiting = [request for request in requests if not request.get("InstanceId")]
            unseen = len(request_ids) - len(requests)
            if waiting or unseen:
                seen = ", ".join(sorted({request["Status"]["Code"] for request in waiting})) or "not shown yet"
                left = f"{len(waiting) + unseen} of {len(request_ids)} wait"
                raise InsufficientCapacity(f"RequestSpotInstances: {left}: {seen}")

        await retry(look, _FULFILMENT_DEADLINE, pause=_POLL_SECONDS)

    async def _open_requests(self, key: str) -> list[str]:
        requests = await self._spot_requests([_made_for(key), {"Name": "state", "Values": ["open"]}])
        return [request["SpotInstanceRequestId"] for request in requests]

    async def _cancel_open(self, key: str) -> list[str]:
        """Cancel the step's spot requests that have no instance yet, and say which those were."""
        requests = await self._open_requests(key)
        await self._cancel(requests)
        return requests

    async def _cancel(self, request_ids: Sequence[str]) -> None:
        if request_ids:
            await self._call(self._ec2.cancel_spot_instance_requests, SpotInstanceRequestIds=list(request_ids))

    async def _still_there(self, instance_ids: Iterable[str]) -> list[str]:
        return await self._ids(instance_ids, _NOT_ENDED)

    async def _ids(self, instance_ids: Iterable[str], states: Iterable[str]) -> list[str]:
        """Those of these instances that are in one of these states, sorted."""
        found = await self._describe([_id_filter(instance_ids), _state_filter(states)])
        return sorted(instance["InstanceId"] for instance in found)

    async def _image(self, instance_type: str) -> str:
        """The machine image of what runs here, best of the same type: what replaces it must start alike."""
        running = await self._describe([_state_filter(["running"])])
        if not running:
            raise CloudError(f"RunInstances: nothing runs in {self.region} whose machine image could be used")
        running.sort(key=lambda instance: (instance["InstanceType"] != instance_type, instance["LaunchTime"]))
        image: str = running[0]["ImageId"]
        return image

    async def _describe(self, filters: list[Shape]) -> list[Shape]:
        def pages() -> list[Shape]:
            paginator = self._ec2.get_paginator("describe_instances")
            return [
                instance
                for page in paginator.paginate(Filters=filters)
                for reservation in page["Reservations"]
                for instance in reservation["Instances"]
            ]

        return await self._call(pages)

    async def _spot_requests(self, filters: list[Shape]) -> list[Shape]:
        def pages() -> list[Shape]:
            paginator = self._ec2.get_paginator("describe_spot_instance_requests")
            return [request for page in paginator.paginate(Filters=filters) for request in page["SpotInstanceRequests"]]

        return await self._call(pages)

    async def _call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what may be repeated, again and again while the cloud is away."""
        attempt = functools.partial(self._once, operation, *args, **kwargs)
        return await retry(attempt, _AWAY_SECONDS, CloudUnavailable, pause=_POLL_SECONDS)

    async def _once(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # botocore blocks; a thread keeps the event loop free.
        return await asyncio.to_thread(aws_clients.translated(operation), *args, **kwargs)

    async def _carried_through(self, order: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, and when cancelled wait for the end all the same: whoever clears up next must see what was made."""
        call = asyncio.create_task(self._once(order, *args, **kwargs))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.gather(call, return_exceptions=True)
            raise

    def _described(self, instance: Shape) -> CloudInstance:
        return CloudInstance(
            instance_id=instance["InstanceId"],
            provider="aws",
            region=self.region,
            instance_type=instance["InstanceType"],
            lifecycle="spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand",
            state=_STATES[instance["State"]["Name"]],
            tags=_tags(instance),
        )


def _tags(described: Shape) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def _tag_list(tags: Mapping[str, str]) -> list[Shape]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _made_for(key: str) -> Shape:
    return {"Name": f"tag:{STEP_TAG}", "Values": [key]}


def _token(key: str, made: Sequence[Shape]) -> str:
    """Under it EC2 makes the step's next order once, however often it is sent (64 characters at most).

    `made` is what came of the orders before, whatever became of it: their tokens stay used up.
    """
    return hashlib.sha256(f"{key}:{len(made)}".encode()).hexdigest()


def _state_filter(states: Iterable[str]) -> Shape:
    return {"Name": "instance-state-name", "Values": list(states)}


def _id_filter(instance_ids: Iterable[str]) -> Shape:
    return {"Name": "instance-id", "Values": list(instance_ids)}
