"""Connecting to the cloud of a customer's account."""

from optiinfra.clouds.connections import connect_aws
from optiinfra.clouds.protocol import Cloud, RoleDenied
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models


async def cloud_of(settings: Settings, account: models.CloudAccount) -> Cloud:
    """The cloud of an account. Raises CloudError when the role cannot be assumed, or leads to another account."""
    return await enter(settings, account.region, account.role_arn, account.external_id, account.account_id)


async def enter(settings: Settings, region: str, role_arn: str, external_id: str, account_id: str | None) -> Cloud:
    """Like `cloud_of`, for an account that need not be stored."""
    cloud = await connect_aws(
        settings.aws_endpoint_url,
        region,
        role_arn,
        external_id,
        settings.aws_access_key_id,
        settings.aws_secret_access_key,
    )
    if cloud.account_id != account_id:
        raise RoleDenied(f"GetCallerIdentity: the role leads to account {cloud.account_id}, not to {account_id}")
    return cloud
