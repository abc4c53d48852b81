"""EC2 clients of an assumed role, and the translation of their errors to ours."""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import boto3
import botocore.session
from anyio import CapacityLimiter
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from optiinfra import threads
from optiinfra.clouds.protocol import CloudError, CloudUnavailable, InsufficientCapacity, RoleDenied

P = ParamSpec("P")
T = TypeVar("T")

RETRYING = Config(
    connect_timeout=5,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=20,
)
SINGLE_ATTEMPT = RETRYING.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))
_SESSION_NAME = "optiinfra"

_ACCESS_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_CAPACITY_CODES = {
    "InsufficientInstanceCapacity",
    "InsufficientCapacity",
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "VcpuLimitExceeded",
}
_TEMPORARY_CODES = {"InternalError", "RequestLimitExceeded", "ServiceUnavailable", "Throttling", "Unavailable"}

_THREADS = CapacityLimiter(32)
"""Threads of their own: clouds that do not answer must not keep stores and passwords waiting."""

# Clients may be used by several threads at once, but not created.
_CREATION_LOCK = threading.Lock()


async def in_thread(operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call botocore, which blocks, in a thread."""
    return await threads.in_thread(_THREADS, operation, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class RoleClients:
    """Clients of an assumed role, and the account that it is in, by the cloud's own word.

    `ec2` retries; `launch`, for calls that create, makes a single attempt.
    """

    account_id: str
    ec2: Any
    launch: Any


def role_clients(
    endpoint_url: str | None,
    region: str,
    role_arn: str,
    external_id: str,
    access_key_id: str,
    secret_access_key: str,
) -> RoleClients:
    """The clients of a role.

    Raises RoleDenied if the role cannot be assumed. Credentials renew themselves before they expire.
    """
    platform_session = new_session()
    platform_session.set_credentials(access_key_id, secret_access_key)
    sts = new_client(platform_session, "sts", endpoint_url, region, RETRYING)

    def assume() -> dict[str, Any]:
        request = {"RoleArn": role_arn, "RoleSessionName": _SESSION_NAME, "ExternalId": external_id}
        credentials = translate_errors(sts.assume_role)(**request)["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }

    role_session = new_session()
    role_session.register_component("credential_provider", CredentialResolver([_Role(assume)]))
    role_session.get_credentials()  # fails here rather than at the first call, and outside of the lock
    identity = translate_errors(new_client(role_session, "sts", endpoint_url, region, RETRYING).get_caller_identity)()
    return RoleClients(
        account_id=identity["Account"],
        ec2=new_client(role_session, "ec2", endpoint_url, region, RETRYING),
        launch=new_client(role_session, "ec2", endpoint_url, region, SINGLE_ATTEMPT),
    )


class _Role(CredentialProvider):
    """Credential provider for an assumed role, with renewal."""

    METHOD = CANONICAL_NAME = "optiinfra-assume-role"

    def __init__(self, assume: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._assume = assume

    def load(self) -> RefreshableCredentials:
        return RefreshableCredentials.create_from_metadata(
            metadata=self._assume(), refresh_using=self._assume, method=self.METHOD
        )


def new_session() -> botocore.session.Session:
    """A session without credentials that shares the service descriptions with all others."""
    session = botocore.session.Session()
    with _CREATION_LOCK:
        session.register_component("data_loader", data_loader())
    return session


@functools.cache
def data_loader() -> Any:
    """Service descriptions, loaded once for all sessions: EC2's takes a quarter of a second of CPU."""
    return botocore.session.Session().get_component("data_loader")


def new_client(
    session: botocore.session.Session, service: Any, endpoint_url: str | None, region: str, config: Config
) -> Any:
    """A boto3 client of a service; may be called by several threads at once."""
    with _CREATION_LOCK:
        return boto3.Session(botocore_session=session).client(
            service, endpoint_url=endpoint_url, region_name=region, config=config
        )


def translate_errors(operation: Callable[P, T]) -> Callable[P, T]:
    """The operation, raising a CloudError instead of botocore's errors."""

    @functools.wraps(operation)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return operation(*args, **kwargs)
        except ClientError as error:
            raise _cloud_error(error) from error
        except BotoCoreError as error:
            raise CloudUnavailable(f"{type(error).__name__}: {error}") from error
        except ResponseParserError as error:  # a proxy's error page, or half a response
            raise CloudUnavailable("the cloud's answer cannot be read") from error

    return call


def _cloud_error(error: ClientError) -> CloudError:
    code = error.response["Error"].get("Code", "")
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    text = f"{error.operation_name}: {code}: {error.response['Error'].get('Message', '')}"
    if code in _ACCESS_DENIED:
        return RoleDenied(text)
    if code in _CAPACITY_CODES:
        return InsufficientCapacity(text)
    if code in _TEMPORARY_CODES or status >= 500:
        return CloudUnavailable(text)
    return CloudError(text)
