"""An AwsCloud on a fake EC2 in memory."""

from dataclasses import replace

import pytest

from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.aws_api import Timeouts
from tests.unit.clouds.ec2 import Ec2

TIMEOUTS = Timeouts(outage=0.0, fulfilment=60.0, termination=60.0, power=60.0, poll=0.01)
"""No retries during an outage; other waits end as soon as their condition holds."""


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


@pytest.fixture
def cloud(ec2: Ec2) -> AwsCloud:
    return AwsCloud(ec2.clients, "us-east-1", TIMEOUTS)


@pytest.fixture
def hurried_cloud(ec2: Ec2) -> AwsCloud:
    """The same account, whose waits time out after one or two polls: for tests that expect a timeout."""
    return AwsCloud(ec2.clients, "us-east-1", replace(TIMEOUTS, fulfilment=0.02, termination=0.02))


@pytest.fixture
def patient_cloud(ec2: Ec2) -> AwsCloud:
    """The same account, with retries during an outage."""
    return AwsCloud(ec2.clients, "us-east-1", replace(TIMEOUTS, outage=60.0))
