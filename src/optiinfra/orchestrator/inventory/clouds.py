"""Connecting to the cloud of a customer's account."""

from optiinfra.clouds.aws import connect_aws
from optiinfra.clouds.protocol import Cloud
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models


async def cloud_of(settings: Settings, account: models.CloudAccount) -> Cloud:
    """The cloud of an account. Raises CloudError when the role cannot be assumed."""
    return await connect_aws(
        settings.aws_endpoint_url,
        account.region,
        account.role_arn,
        account.external_id,
        settings.aws_access_key_id,
        settings.aws_secret_access_key,
    )
