"""A cloud account that a test connects and fills by itself, and its true cost."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from fixtures import aws
from fixtures.estates.schema import Lifecycle
from fixtures.provision import SeededCloud
from optiinfra.api.customers import Infrastructure
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.callers import call

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

REGION = "us-east-1"
DISCOVERY_SECONDS = 30.0


@dataclass(frozen=True)
class OwnedAccount:
    """An account as its owner sees it, through the cloud's own client."""

    cloud: SeededCloud
    ec2: "EC2Client"

    def start(self, instance_type: str, count: int = 1, lifecycle: Lifecycle = "on-demand") -> list[str]:
        """Start instances; returns their ids."""
        return aws.start_instances(self.ec2, instance_type, count, lifecycle, {"Name": "test"})

    def monthly_cost(self) -> float:
        """Dollars a month of what runs, each instance in whole cents; types without a known price cost nothing."""
        running = cloud_state.running_in(self.cloud).values()
        hours = cloud_state.HOURS_PER_MONTH
        return round(sum(round(cloud_state.HOURLY.get(kind, 0.0) * hours, 2) for kind in running), 2)

    def connect(self, http: httpx.Client, customer_id: str, token: str) -> Infrastructure:
        """Onboard the account, and wait until it is discovered."""
        body = {"cloud_provider": "aws", "region": REGION, "iam_role_arn": self.cloud.role_arn}
        call(http, "POST", f"/customers/{customer_id}/onboard", token, body)
        return wait_until(
            lambda: Infrastructure.model_validate(call(http, "GET", f"/customers/{customer_id}/infrastructure", token)),
            f"discovery of account {self.cloud.account_id}",
            DISCOVERY_SECONDS,
            accept=lambda found: found.status == "discovered",
        )


@contextmanager
def owned_account(environment: dict[str, Any]) -> Iterator[OwnedAccount]:
    """A new, empty account, whose instances are terminated afterwards."""
    account_id = f"{random.randrange(10**11, 10**12)}"
    cloud = SeededCloud(
        provider="aws",
        region=REGION,
        account_id=account_id,
        declared_account_id=account_id,
        endpoint_url=environment["urls"]["localstack"],
        role_arn=aws.role_arn(account_id),
    )
    account = OwnedAccount(cloud, aws.Accounts(cloud.endpoint_url).ec2(REGION, account_id))
    try:
        yield account
    finally:
        if alive := aws.live_instances(account.ec2):
            account.ec2.terminate_instances(InstanceIds=alive)
