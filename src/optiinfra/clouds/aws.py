"""Amazon EC2 through an assumed role."""

import asyncio
import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from optiinfra.clouds import aws_launch
from optiinfra.clouds.aws_api import (
    DEFAULT_TIMEOUTS,
    Ec2Api,
    Shape,
    Timeouts,
    id_filter,
    state_filter,
    step_filter,
    tag_list,
    tags_of,
)
from optiinfra.clouds.aws_clients import RoleClients
from optiinfra.clouds.protocol import (
    STEP_TAG,
    Change,
    CloudError,
    CloudInstance,
    CloudUnavailable,
    InsufficientCapacity,
    LaunchSettings,
    NotCovered,
)
from optiinfra.clouds.retries import retry
from optiinfra.domain.recommendation import InstanceState, Lifecycle

_LAUNCH_ATTEMPTS = 3

_STATES: dict[str, InstanceState] = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopped",
    "stopped": "stopped",
    "shutting-down": "terminated",
    "terminated": "terminated",
}
_RUNNING = ["pending", "running"]
_NOT_TERMINATED = ["pending", "running", "stopping", "stopped"]
_ENDED = ["shutting-down", "terminated", "stopping", "stopped"]
_INTERRUPTED = ("marked-for-", "instance-terminated-", "instance-stopped-")
"""Prefixes of a spot request's status code when EC2 reclaims, or has reclaimed, its instance."""


class _LaunchUnanswered(CloudUnavailable):
    """EC2 did not answer a launch, and instances are still missing."""


class AwsCloud:
    """One AWS account in one region (`clouds.protocol.Cloud`)."""

    def __init__(self, clients: RoleClients, region: str, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        self._api = Ec2Api(clients, timeouts)
        self.account_id = clients.account_id
        self._timeouts = timeouts
        self.region = region

    async def instances(self) -> list[CloudInstance]:
        """Every instance in the region; terminated ones as long as EC2 lists them."""
        return [self._instance(instance) for instance in await self._api.instances()]

    async def ensure_instances(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        """Ensure `count` pending or running instances of step `key`; launch only those that are missing.

        Raises InsufficientCapacity if a spot request gets no instance in time; it is cancelled then.
        """
        found = await self._fulfilled_instances(key)

        async def launch_missing() -> list[str]:
            nonlocal found
            try:
                request_ids = await self._launch(key, instance_type, count - len(found), lifecycle, tags)
            except CloudUnavailable as error:
                # EC2 may have carried out a launch that it did not answer: check existing instances before
                # launching again.
                await asyncio.sleep(self._timeouts.poll)
                found = await self._fulfilled_instances(key)
                if len(found) < count:
                    raise _LaunchUnanswered(str(error)) from error
                return found
            return await self._fulfilled_instances(key, request_ids)

        if len(found) >= count:
            return found
        policy = AsyncRetrying(
            retry=retry_if_exception_type(_LaunchUnanswered), stop=stop_after_attempt(_LAUNCH_ATTEMPTS), reraise=True
        )
        return await policy(launch_missing)

    async def tagged_instances(self, key: str) -> list[str]:
        """Ids of the pending and running instances of step `key`, sorted. Does not wait for open requests.

        A spot request is tagged when it is made, its instance only afterwards, by us. If we crashed in between, the
        instance is tagged here, even if its request is cancelled by now.
        """
        found = {instance["InstanceId"] for instance in await self._api.instances(step_filter(key), _running())}
        requests = await self._api.spot_requests(step_filter(key))
        untagged = {
            request["InstanceId"]: request["Tags"]
            for request in requests
            if request.get("InstanceId") and request["InstanceId"] not in found
        }
        for instance in await self._api.instances(id_filter(untagged), _running()) if untagged else []:
            instance_id = instance["InstanceId"]
            await self._api.call(self._api.ec2.create_tags, Resources=[instance_id], Tags=untagged[instance_id])
            found.add(instance_id)
        return sorted(found)

    async def interrupted_instances(self, key: str) -> list[str]:
        """Ids of the spot instances of step `key` that EC2 reclaims, or that have ended; sorted.

        An instance that EC2 does not list has not ended: new ones appear with a delay.
        """
        requests = await self._api.spot_requests(step_filter(key))
        statuses = {one["InstanceId"]: one["Status"]["Code"] for one in requests if one.get("InstanceId")}
        ended = await self._api.instance_ids(statuses, _ENDED) if statuses else []
        reclaimed = {instance_id for instance_id, status in statuses.items() if status.startswith(_INTERRUPTED)}
        return sorted(reclaimed | set(ended))

    async def cancel_and_terminate(self, key: str) -> list[str]:
        """Cancel the open spot requests of step `key`, then terminate its instances."""

        async def cancel() -> None:
            if still_open := await self._cancel_open_requests(key):
                raise CloudUnavailable(f"CancelSpotInstanceRequests: {', '.join(still_open)} still open")

        await retry(cancel, self._timeouts.termination, pause=self._timeouts.poll)
        launched = await self.tagged_instances(
            key
        )  # includes requests that were fulfilled just before the cancellation
        # Not by their tags: EC2 may not list one that was tagged a moment ago with its tags yet.
        await self.terminate(Change(key, frozenset(launched)), launched)
        return launched

    async def open_requests(self) -> dict[str, dict[str, str]]:
        """Tags by id of the spot requests of any step that have no instance yet."""
        requests = await self._api.spot_requests({"Name": "state", "Values": ["open"]})
        found = {request["SpotInstanceRequestId"]: tags_of(request) for request in requests}
        return {request_id: tags for request_id, tags in found.items() if STEP_TAG in tags}

    async def terminate(self, change: Change, instance_ids: Sequence[str]) -> None:
        """Cancel the spot requests of these instances, terminate them, and wait until EC2 shuts them down."""
        if not instance_ids:
            return
        # EC2 forgets a terminated instance after an hour, and one unknown id would fail the whole call.
        known = await self._covered(change, instance_ids, _NOT_TERMINATED)
        # Chosen here: LocalStack does not know the filter `instance-id` for requests.
        requests = await self._api.spot_requests({"Name": "state", "Values": ["open", "active"]})
        own = [each["SpotInstanceRequestId"] for each in requests if each.get("InstanceId") in instance_ids]
        await self._cancel(own)
        if known:
            call = functools.partial(self._api.call_to_completion, self._api.ec2.terminate_instances, InstanceIds=known)
            await retry(call, self._timeouts.outage, CloudUnavailable, pause=self._timeouts.poll)

        async def check() -> None:
            if left := await self._api.instance_ids(instance_ids, _NOT_TERMINATED):
                raise CloudUnavailable(f"TerminateInstances: {', '.join(left)} not shutting down yet")

        await retry(check, self._timeouts.termination, pause=self._timeouts.poll)

    async def stop(self, change: Change, instance_ids: Sequence[str]) -> None:
        """Stop the running instances among these, and wait until EC2 reports them stopped."""
        if running := await self._covered(change, instance_ids, _RUNNING):
            await self._api.call(self._api.ec2.stop_instances, InstanceIds=running)

        async def check() -> None:
            if left := await self._api.instance_ids(instance_ids, [*_RUNNING, "stopping"]):
                raise CloudUnavailable(f"StopInstances: {', '.join(left)} not stopped yet")

        await retry(check, self._timeouts.power, CloudUnavailable, pause=self._timeouts.poll)

    async def start(self, change: Change, instance_ids: Sequence[str]) -> list[str]:
        """Start the stopped instances among these; the ids of all that run then, sorted."""

        async def start() -> list[str]:
            if stopped := await self._covered(change, instance_ids, ["stopped"]):
                await self._api.call(self._api.ec2.start_instances, InstanceIds=stopped)
            if left := await self._api.instance_ids(instance_ids, ["pending", "stopping", "stopped"]):
                raise CloudUnavailable(f"StartInstances: {', '.join(left)} not running yet")
            return await self._api.instance_ids(instance_ids, ["running"])

        return await retry(start, self._timeouts.power, CloudUnavailable, pause=self._timeouts.poll)

    async def launch_settings(self, instance_ids: Sequence[str]) -> dict[str, LaunchSettings]:
        """Parameters of RunInstances for each of these instances that is not terminated, by its id."""
        found: dict[str, LaunchSettings] = {}
        filters = id_filter(instance_ids), state_filter(_NOT_TERMINATED)
        for instance in await self._api.instances(*filters) if instance_ids else []:
            instance_id = instance["InstanceId"]
            answer = await self._api.call(
                self._api.ec2.describe_instance_attribute, InstanceId=instance_id, Attribute="userData"
            )
            found[instance_id] = aws_launch.launch_settings(instance, answer.get("UserData", {}).get("Value"))
        return found

    async def launch_like(self, key: str, settings: LaunchSettings, tags: Mapping[str, str]) -> str:
        """Ensure one running on-demand instance with these settings, tagged for step `key`."""

        async def launch() -> str:
            if not await self._api.instances(step_filter(key), state_filter(_NOT_TERMINATED)):
                await self._run_instances(key, 1, settings, tags)
            running = await self._api.instances(step_filter(key), state_filter(["running"]))
            if not running:
                raise CloudUnavailable(f"RunInstances: the instance of {key} is not running yet")
            instance_id: str = running[0]["InstanceId"]
            return instance_id

        return await retry(launch, self._timeouts.power, CloudUnavailable, pause=self._timeouts.poll)

    async def spot_quote(self, instance_type: str) -> float | None:
        """The current spot price in the region's cheapest zone, dollars an hour; None if EC2 has none."""
        answer = await self._api.call(
            self._api.ec2.describe_spot_price_history,
            InstanceTypes=[instance_type],
            ProductDescriptions=["Linux/UNIX", "Linux/UNIX (Amazon VPC)"],
            StartTime=datetime.now(UTC),
        )
        return min((float(point["SpotPrice"]) for point in answer["SpotPriceHistory"]), default=None)

    async def _covered(self, change: Change, instance_ids: Sequence[str], states: Sequence[str]) -> list[str]:
        """Those of these instances that are in one of these states now, sorted. Raises NotCovered."""
        found = await self._api.instances(id_filter(instance_ids), state_filter(states))
        for instance in found:
            instance_id, owner = instance["InstanceId"], instance["OwnerId"]
            if owner != self.account_id:
                raise NotCovered(f"{instance_id} belongs to another account than {self.account_id}")
            if not change.covers(instance_id, tags_of(instance)):
                raise NotCovered(f"{instance_id} is not part of {change.optimization_id}")
        return sorted(instance["InstanceId"] for instance in found)

    async def _launch(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        """Launch that many more instances; the ids of the spot requests, none for on-demand instances."""
        image = await self._image(instance_type)
        if lifecycle == "spot":
            every_tag = tag_list({**tags, STEP_TAG: key})
            answer = await self._api.call_to_completion(
                self._api.launch.request_spot_instances,
                InstanceCount=count,
                Type="one-time",
                LaunchSpecification={"ImageId": image, "InstanceType": instance_type},
                ClientToken=_client_token(key, await self._api.spot_requests(step_filter(key))),
                TagSpecifications=[{"ResourceType": "spot-instances-request", "Tags": every_tag}],
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
        await self._api.call_to_completion(
            self._api.launch.run_instances,
            **parameters,
            MinCount=count,
            MaxCount=count,
            ClientToken=_client_token(key, await self._api.instances(step_filter(key))),
            TagSpecifications=[{"ResourceType": "instance", "Tags": tag_list(every_tag)}],
        )

    async def _fulfilled_instances(self, key: str, request_ids: Sequence[str] = ()) -> list[str]:
        """The step's instances, once the spot requests (by default those still open) are fulfilled."""
        if waiting := request_ids or await self._open_requests(key):
            try:
                await self._wait_for_fulfilment(waiting)
            except BaseException as reason:
                # Cancel them, so that they are not fulfilled after the caller has given up.
                try:
                    await self._cancel_open_requests(key)
                except CloudError as error:
                    reason.add_note(f"open spot requests could not be cancelled: {error}")
                raise
        return await self.tagged_instances(key)

    async def _wait_for_fulfilment(self, request_ids: Sequence[str]) -> None:
        """Wait until each request has an instance."""

        async def check() -> None:
            requests = await self._api.spot_requests({"Name": "spot-instance-request-id", "Values": list(request_ids)})
            waiting = [request for request in requests if not request.get("InstanceId")]
            unlisted = len(request_ids) - len(requests)
            if waiting or unlisted:
                codes = ", ".join(sorted({request["Status"]["Code"] for request in waiting})) or "not listed yet"
                left = f"{len(waiting) + unlisted} of {len(request_ids)} wait"
                raise InsufficientCapacity(f"RequestSpotInstances: {left}: {codes}")

        await retry(check, self._timeouts.fulfilment, pause=self._timeouts.poll)

    async def _open_requests(self, key: str) -> list[str]:
        requests = await self._api.spot_requests(step_filter(key), {"Name": "state", "Values": ["open"]})
        return [request["SpotInstanceRequestId"] for request in requests]

    async def _cancel_open_requests(self, key: str) -> list[str]:
        """Cancel the step's spot requests that have no instance yet, and return their ids."""
        requests = await self._open_requests(key)
        await self._cancel(requests)
        return requests

    async def _cancel(self, request_ids: Sequence[str]) -> None:
        if request_ids:
            await self._api.call(self._api.ec2.cancel_spot_instance_requests, SpotInstanceRequestIds=list(request_ids))

    async def _image(self, instance_type: str) -> str:
        """The machine image of a running instance, preferably of the same type, for its replacement."""
        running = await self._api.instances(state_filter(["running"]))
        if not running:
            raise CloudError(f"RunInstances: no instance runs in {self.region} whose machine image could be used")
        running.sort(key=lambda instance: (instance["InstanceType"] != instance_type, instance["LaunchTime"]))
        image: str = running[0]["ImageId"]
        return image

    def _instance(self, described: Shape) -> CloudInstance:
        return CloudInstance(
            instance_id=described["InstanceId"],
            provider="aws",
            region=self.region,
            instance_type=described["InstanceType"],
            lifecycle="spot" if described.get("InstanceLifecycle") == "spot" else "on-demand",
            state=_STATES[described["State"]["Name"]],
            tags=tags_of(described),
        )


def _running() -> Shape:
    return state_filter(_RUNNING)


def _client_token(key: str, launched: Sequence[Shape]) -> str:
    """Idempotency token (at most 64 characters) under which EC2 carries out the step's next launch only once.

    `launched` are the step's instances or requests so far, whatever their state: their tokens are used up.
    """
    return hashlib.sha256(f"{key}:{len(launched)}".encode()).hexdigest()
