"""Amazon EC2 through an assumed role."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from optiinfra.clouds.protocol import (
    STEP_TAG,
    CloudError,
    CloudInstance,
    CloudUnavailable,
    InsufficientCapacity,
    RoleDenied,
)
from optiinfra.domain.recommendation import InstanceState, Lifecycle

Shape = dict[str, Any]
"""A structure of the EC2 API under its own names."""

P = ParamSpec("P")
T = TypeVar("T")

_CONFIG = Config(
    connect_timeout=5,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=20,
)
_SESSION_NAME = "optiinfra"
_FULFILMENT_DEADLINE = 120.0
_TERMINATION_DEADLINE = 60.0
_POLL_SECONDS = 0.5

_STATES: dict[str, InstanceState] = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopped",
    "stopped": "stopped",
    "shutting-down": "terminated",
    "terminated": "terminated",
}
_ALIVE = ["pending", "running"]
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_NO_CAPACITY = {
    "InsufficientInstanceCapacity",
    "InsufficientCapacity",
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "VcpuLimitExceeded",
}
_PATIENCE = {"InternalError", "RequestLimitExceeded", "ServiceUnavailable", "Throttling", "Unavailable"}


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
    return await asyncio.to_thread(
        _connect, endpoint_url, region, role_arn, external_id, access_key_id, secret_access_key
    )


# Making a client reads megabytes of service description; roles and regions are few. A failure is not kept.
@functools.lru_cache(maxsize=256)
def _connect(
    endpoint_url: str | None,
    region: str,
    role_arn: str,
    external_id: str | None,
    access_key_id: str,
    secret_access_key: str,
) -> "AwsCloud":
    sts: Any = boto3.client(
        "sts",
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=_CONFIG,
    )

    def assume() -> Shape:
        request: Shape = {"RoleArn": role_arn, "RoleSessionName": _SESSION_NAME}
        if external_id is not None:
            request["ExternalId"] = external_id
        credentials = _translated(sts.assume_role)(**request)["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }

    session = botocore.session.Session()
    session.register_component("credential_provider", CredentialResolver([_Role(assume)]))
    session.get_credentials()  # refused here rather than at the first call
    ec2 = boto3.Session(botocore_session=session).client(
        "ec2", endpoint_url=endpoint_url, region_name=region, config=_CONFIG
    )
    return AwsCloud(ec2, account_id=role_arn.split(":")[4], region=region)


class _Role(CredentialProvider):
    """Gives botocore a role's credentials, and the way to renew them."""

    METHOD = CANONICAL_NAME = "optiinfra-assume-role"

    def __init__(self, assume: Callable[[], Shape]) -> None:
        super().__init__()
        self._assume = assume

    def load(self) -> RefreshableCredentials:
        return RefreshableCredentials.create_from_metadata(
            metadata=self._assume(), refresh_using=self._assume, method=self.METHOD
        )


class AwsCloud:
    """One AWS account in one region (`clouds.protocol.Cloud`)."""

    def __init__(self, ec2: Any, account_id: str, region: str) -> None:
        self._ec2 = ec2
        self._account_id = account_id
        self.region = region

    @property
    def account_id(self) -> str:
        """The twelve digits of the account."""
        return self._account_id

    async def instances(self) -> list[CloudInstance]:
        """Every instance in the region, terminated ones too as long as EC2 shows them."""
        return [self._described(instance) for instance in await self._describe([])]

    async def ensure_instances(
        self, key: str, instance_type: str, count: int, lifecycle: Lifecycle, tags: Mapping[str, str]
    ) -> list[str]:
        """Have `count` living instances made for step `key`; create only those that are missing."""
        found = await self.tagged(key)
        missing = count - len(found)
        if missing <= 0:
            return found
        wanted = {**tags, STEP_TAG: key}
        image = await self._image(instance_type)
        if lifecycle == "spot":
            await self._request_spot(instance_type, missing, image, wanted)
        else:
            await self._call(
                self._ec2.run_instances,
                ImageId=image,
                InstanceType=instance_type,
                MinCount=missing,
                MaxCount=missing,
                TagSpecifications=[{"ResourceType": "instance", "Tags": _tag_list(wanted)}],
            )
        return await self.tagged(key)

    async def tagged(self, key: str) -> list[str]:
        """Ids of the living instances made for step `key`, sorted.

        A spot request carries the tags from its first moment, its instance only once we give them to it: instances
        whose request is tagged are tagged here, in case the one who asked for them was stopped in between.
        """
        by_tag = {"Name": f"tag:{STEP_TAG}", "Values": [key]}
        found = {instance["InstanceId"] for instance in await self._describe([by_tag, _state_filter(_ALIVE)])}
        requests = await self._spot_requests([by_tag, {"Name": "state", "Values": ["open", "active"]}])
        if waiting := [request["SpotInstanceRequestId"] for request in requests if not request.get("InstanceId")]:
            requests = await self._fulfilled(waiting) + [r for r in requests if r.get("InstanceId")]
        untagged = {request["InstanceId"]: request for request in requests if request["InstanceId"] not in found}
        for instance in await self._describe([_id_filter(untagged), _state_filter(_ALIVE)]) if untagged else []:
            instance_id = instance["InstanceId"]
            request_tags = untagged[instance_id].get("Tags", [])
            await self._call(self._ec2.create_tags, Resources=[instance_id], Tags=request_tags)
            found.add(instance_id)
        return sorted(found)

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
        await self._cancel(request["SpotInstanceRequestId"] for request in requests)
        # EC2 forgets a terminated instance after an hour, and one unknown id would fail the whole call.
        if living := await self._still_there(instance_ids):
            await self._call(self._ec2.terminate_instances, InstanceIds=living)

        async def gone() -> None:
            if left := await self._still_there(instance_ids):
                raise CloudUnavailable(f"TerminateInstances: {', '.join(left)} not shutting down yet")

        await _until(gone, _TERMINATION_DEADLINE)

    async def spot_quote(self, instance_type: str) -> float | None:
        """The present spot price in the region's cheapest zone, dollars an hour; None when EC2 has none."""
        answer = await self._call(
            self._ec2.describe_spot_price_history,
            InstanceTypes=[instance_type],
            ProductDescriptions=["Linux/UNIX", "Linux/UNIX (Amazon VPC)"],
            StartTime=datetime.now(UTC),
        )
        return min((float(point["SpotPrice"]) for point in answer["SpotPriceHistory"]), default=None)

    async def _request_spot(self, instance_type: str, count: int, image: str, tags: Mapping[str, str]) -> None:
        answer = await self._call(
            self._ec2.request_spot_instances,
            InstanceCount=count,
            Type="one-time",
            LaunchSpecification={"ImageId": image, "InstanceType": instance_type},
            TagSpecifications=[{"ResourceType": "spot-instances-request", "Tags": _tag_list(tags)}],
        )
        requests = [request["SpotInstanceRequestId"] for request in answer["SpotInstanceRequests"]]
        try:
            await self._fulfilled(requests)
        except InsufficientCapacity:
            # What was fulfilled of the order stays, findable by its tag; what was not must not come later.
            await self._cancel(requests)
            raise

    async def _fulfilled(self, request_ids: Sequence[str]) -> list[Shape]:
        """The requests once each has an instance."""

        async def look() -> list[Shape]:
            requests = await self._spot_requests([{"Name": "spot-instance-request-id", "Values": list(request_ids)}])
            waiting = [request for request in requests if not request.get("InstanceId")]
            if waiting or len(requests) < len(request_ids):
                seen = ", ".join(sorted({request["Status"]["Code"] for request in waiting})) or "not shown yet"
                raise InsufficientCapacity(f"RequestSpotInstances: {len(waiting)} of {len(request_ids)} wait: {seen}")
            return requests

        return await _until(look, _FULFILMENT_DEADLINE)

    async def _cancel(self, request_ids: Iterable[str]) -> None:
        if ids := list(request_ids):
            await self._call(self._ec2.cancel_spot_instance_requests, SpotInstanceRequestIds=ids)

    async def _still_there(self, instance_ids: Iterable[str]) -> list[str]:
        alive = _state_filter(["pending", "running", "stopping", "stopped"])
        return [instance["InstanceId"] for instance in await self._describe([_id_filter(instance_ids), alive])]

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
        # botocore blocks; a thread keeps the event loop free.
        return await asyncio.to_thread(_translated(operation), *args, **kwargs)

    def _described(self, instance: Shape) -> CloudInstance:
        return CloudInstance(
            instance_id=instance["InstanceId"],
            provider="aws",
            region=self.region,
            instance_type=instance["InstanceType"],
            lifecycle="spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand",
            state=_STATES[instance["State"]["Name"]],
            tags={tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])},
        )


def _translated(operation: Callable[P, T]) -> Callable[P, T]:
    """The operation, raising our errors in place of botocore's."""

    @functools.wraps(operation)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return operation(*args, **kwargs)
        except ClientError as error:
            raise _meaning(error) from error
        except BotoCoreError as error:
            raise CloudUnavailable(f"{type(error).__name__}: {error}") from error

    return call


def _meaning(error: ClientError) -> CloudError:
    code = error.response["Error"].get("Code", "")
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    text = f"{error.operation_name}: {code}: {error.response['Error'].get('Message', '')}"
    if code in _DENIED:
        return RoleDenied(text)
    if code in _NO_CAPACITY:
        return InsufficientCapacity(text)
    if code in _PATIENCE or status >= 500:
        return CloudUnavailable(text)
    return CloudError(text)


async def _until(look: Callable[[], Awaitable[T]], deadline: float) -> T:
    """Look until it no longer raises a CloudError, and let the last one through after `deadline` seconds."""
    ends = time.monotonic() + deadline
    while True:
        try:
            return await look()
        except CloudError:
            if time.monotonic() + _POLL_SECONDS > ends:
                raise
        await asyncio.sleep(_POLL_SECONDS)


def _tag_list(tags: Mapping[str, str]) -> list[Shape]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _state_filter(states: Iterable[str]) -> Shape:
    return {"Name": "instance-state-name", "Values": list(states)}


def _id_filter(instance_ids: Iterable[str]) -> Shape:
    return {"Name": "instance-id", "Values": list(instance_ids)}
