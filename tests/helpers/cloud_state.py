"""What a customer's clouds contain and cost, read from the clouds directly and priced independently of the platform."""

from typing import TYPE_CHECKING

from fixtures.aws import Accounts
from fixtures.provision import SeededCloud, SeededEstate

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

InstanceKind = tuple[str, str]
"""An instance's type and lifecycle."""

HOURS_PER_MONTH = 730

# Dollars an hour in us-east-1. On demand: AWS list prices of 2026. Spot: typical prices; p4de at the rate of a Capacity
# Block, which limits the spot price, the others from the discounts of Spot Advisor.
HOURLY = {
    ("p4de.24xlarge", "on-demand"): 27.44705,
    ("p4de.24xlarge", "spot"): 14.7663,
    ("p5.48xlarge", "on-demand"): 55.04,
    ("g5.xlarge", "on-demand"): 1.006,
    ("g5.xlarge", "spot"): 0.4125,
    ("g5.12xlarge", "on-demand"): 5.672,
    ("g6.12xlarge", "on-demand"): 4.6016,
    ("g6.12xlarge", "spot"): 1.8867,
}


def running_in(cloud: SeededCloud, deployment: str | None = None) -> dict[str, InstanceKind]:
    """Running instances of one account by id, all or those of a deployment by its tag."""
    filters = [{"Name": "instance-state-name", "Values": ["running"]}]
    if deployment is not None:
        filters.append({"Name": "tag:optiinfra:deployment", "Values": [deployment]})
    pages = ec2(cloud).get_paginator("describe_instances").paginate(Filters=filters)  # type: ignore[arg-type]
    return {
        instance["InstanceId"]: (instance["InstanceType"], instance.get("InstanceLifecycle", "on-demand"))
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }


def launched_in(cloud: SeededCloud) -> list[tuple[str, str, str]]:
    """Type, lifecycle and present state of every instance that was ever launched in one account."""
    return [
        (instance["InstanceType"], instance.get("InstanceLifecycle", "on-demand"), instance["State"]["Name"])
        for page in ec2(cloud).get_paginator("describe_instances").paginate()
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def running(seeded: SeededEstate, deployment: str | None = None) -> list[InstanceKind]:
    """Type and lifecycle of the running instances in all accounts, all or those of a deployment by its tag."""
    return sorted(kind for cloud in seeded.clouds for kind in running_in(cloud, deployment).values())


def monthly_cost(seeded: SeededEstate, deployment: str | None = None) -> float:
    """Dollars a month of the running instances."""
    return sum(HOURLY[kind] * HOURS_PER_MONTH for kind in running(seeded, deployment))


def monthly_cost_as_spot(seeded: SeededEstate, deployment: str) -> float:
    """Dollars a month that a deployment's running instances would cost on spot."""
    return sum(HOURLY[kind, "spot"] * HOURS_PER_MONTH for kind, _ in running(seeded, deployment))


def spot_requests_in(cloud: SeededCloud, instance_type: str | None = None) -> list[str]:
    """The states of all spot requests ever made in one account, or of those for one type."""
    pages = ec2(cloud).get_paginator("describe_spot_instance_requests").paginate()
    return sorted(
        request["State"]
        for page in pages
        for request in page["SpotInstanceRequests"]
        if instance_type in (None, request["LaunchSpecification"]["InstanceType"])
    )


def spot_requests(seeded: SeededEstate, instance_type: str | None = None) -> list[str]:
    """The states of all spot requests ever made in the customer's accounts, or of those for one type."""
    return sorted(state for cloud in seeded.clouds for state in spot_requests_in(cloud, instance_type))


def ec2(cloud: SeededCloud) -> "EC2Client":
    """A client of the account itself, past the cloud front."""
    return Accounts(cloud.endpoint_url).ec2(cloud.region, cloud.account_id)
