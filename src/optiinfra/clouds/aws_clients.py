"""EC2 clients of an assumed role, and the translation of their errors to ours.

A client takes 1.5 MB and 15 ms of CPU, so all roles share one for each region. What differs are the credentials, which
each call gets from its own context.
"""

import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import boto3
import botocore.session
from anyio import CapacityLimiter
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from optiinfra import threads
from optiinfra.clouds.protocol import CloudError, CloudUnavailable, InsufficientCapacity, RoleDenied

P = ParamSpec("P")
T = TypeVar("T")

_MOST_CALLS = 32

RETRYING = Config(
    connect_timeout=5,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=_MOST_CALLS,
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

_THREADS = CapacityLimiter(_MOST_CALLS)
"""Threads of their own: clouds that do not answer must not keep stores and passwords waiting."""

# Clients may be used by several threads at once, but not created.
_CREATION_LOCK = threading.Lock()

_REGIONS = 32
"""AWS has about as many, and a customer may name regions that do not exist."""

_ROLE: ContextVar[Credentials] = ContextVar("role")
"""The credentials of the present call."""


async def in_thread(operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call botocore, which blocks, in a thread."""
    return await threads.in_thread(_THREADS, operation, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class RoleClients:
    """Clients to be called as an assumed role, and the account that it is in, by the cloud's own word.

    `ec2` retries; `launch`, for calls that create, makes a single attempt. Both fail outside of `acting`.
    """

    account_id: str
    ec2: Any
    launch: Any
    credentials: Credentials

    def acting(self, operation: Callable[P, T]) -> Callable[P, T]:
        """The operation, with its calls of these clients signed as the role."""
        return _acting(self.credentials, operation)


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
    sts = _platform_sts(endpoint_url, region, access_key_id, secret_access_key)

    def assume() -> dict[str, Any]:
        request = {"RoleArn": role_arn, "RoleSessionName": _SESSION_NAME, "ExternalId": external_id}
        credentials = translate_errors(sts.assume_role)(**request)["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }

    credentials = RefreshableCredentials.create_from_metadata(assume(), refresh_using=assume, method=_RoleOfCall.METHOD)
    who_am_i = _shared_client("sts", endpoint_url, region, RETRYING).get_caller_identity
    return RoleClients(
        account_id=translate_errors(_acting(credentials, who_am_i))()["Account"],
        ec2=_shared_client("ec2", endpoint_url, region, RETRYING),
        launch=_shared_client("ec2", endpoint_url, region, SINGLE_ATTEMPT),
        credentials=credentials,
    )


def _acting(credentials: Credentials, operation: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(operation)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        before = _ROLE.set(credentials)
        try:
            return operation(*args, **kwargs)
        finally:
            _ROLE.reset(before)

    return call


class _RoleOfCall(CredentialProvider, Credentials):
    """Credentials of shared clients: those of the role that the present call acts as. Without one it fails."""

    METHOD = CANONICAL_NAME = "optiinfra-assume-role"

    def __init__(self) -> None:
        self.method = self.METHOD

    def load(self) -> Credentials:
        return self

    def get_frozen_credentials(self) -> Any:
        return _ROLE.get().get_frozen_credentials()


@functools.lru_cache(maxsize=_REGIONS)
def _platform_sts(endpoint_url: str | None, region: str, access_key_id: str, secret_access_key: str) -> Any:
    """The client that assumes roles, with the platform's own keys."""
    session = new_session()
    session.set_credentials(access_key_id, secret_access_key)
    return new_client(session, "sts", endpoint_url, region, RETRYING)


@functools.lru_cache(maxsize=3 * _REGIONS)
def _shared_client(service: str, endpoint_url: str | None, region: str, config: Config) -> Any:
    """A client that signs each call as the role in its context."""
    session = new_session()
    session.register_component("credential_provider", CredentialResolver([_RoleOfCall()]))
    return new_client(session, service, endpoint_url, region, config)


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
