"""EC2 clients inside an assumed role, and what their errors mean to us."""

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from optiinfra.clouds.protocol import CloudError, CloudUnavailable, InsufficientCapacity, RoleDenied

P = ParamSpec("P")
T = TypeVar("T")

_PATIENT = Config(
    connect_timeout=5,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=20,
)
_ONCE = _PATIENT.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))
_SESSION_NAME = "optiinfra"

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

# Using clients out of several threads is safe, making them is not.
_MAKING = threading.Lock()


def in_role(
    endpoint_url: str | None,
    region: str,
    role_arn: str,
    external_id: str | None,
    access_key_id: str,
    secret_access_key: str,
) -> tuple[Any, Any]:
    """Two EC2 clients: one that repeats what fails on the way, and one for orders, which calls once.

    RoleDenied when the account does not let us take the role. Credentials renew themselves before they expire.
    """
    own = _session()
    own.set_credentials(access_key_id, secret_access_key)
    sts = _client(own, "sts", endpoint_url, region, _PATIENT)

    def assume() -> dict[str, Any]:
        request = {"RoleArn": role_arn, "RoleSessionName": _SESSION_NAME}
        if external_id is not None:
            request["ExternalId"] = external_id
        credentials = translated(sts.assume_role)(**request)["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }

    theirs = _session()
    theirs.register_component("credential_provider", CredentialResolver([_Role(assume)]))
    theirs.get_credentials()  # refused here rather than at the first call, and not while clients are made
    return _client(theirs, "ec2", endpoint_url, region, _PATIENT), _client(theirs, "ec2", endpoint_url, region, _ONCE)


class _Role(CredentialProvider):
    """Gives botocore a role's credentials, and the way to renew them."""

    METHOD = CANONICAL_NAME = "optiinfra-assume-role"

    def __init__(self, assume: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._assume = assume

    def load(self) -> RefreshableCredentials:
        return RefreshableCredentials.create_from_metadata(
            metadata=self._assume(), refresh_using=self._assume, method=self.METHOD
        )


def _session() -> botocore.session.Session:
    session = botocore.session.Session()
    with _MAKING:
        session.register_component("data_loader", _descriptions())
    return session


@functools.cache
def _descriptions() -> Any:
    """What AWS's services look like, one for all sessions: reading EC2's takes a quarter of a second of CPU."""
    return botocore.session.Session().get_component("data_loader")


def _client(session: botocore.session.Session, service: Any, endpoint_url: str | None, region: str, how: Config) -> Any:
    with _MAKING:
        return boto3.Session(botocore_session=session).client(
            service, endpoint_url=endpoint_url, region_name=region, config=how
        )


def translated(operation: Callable[P, T]) -> Callable[P, T]:
    """The operation, raising our errors in place of botocore's."""

    @functools.wraps(operation)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return operation(*args, **kwargs)
        except ClientError as error:
            raise _meaning(error) from error
        except BotoCoreError as error:
            raise CloudUnavailable(f"{type(error).__name__}: {error}") from error
        except ResponseParserError as error:  # what stands before the cloud answered: a proxy's page, half an answer
            raise CloudUnavailable("the cloud's answer cannot be read") from error

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
