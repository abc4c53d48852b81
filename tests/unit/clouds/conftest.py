"""A cloud on an EC2 in memory, whose waits are short."""

import pytest

from optiinfra.clouds import aws
from optiinfra.clouds.aws import AwsCloud
from tests.unit.clouds.ec2 import Ec2


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


@pytest.fixture
def cloud(ec2: Ec2) -> AwsCloud:
    return AwsCloud(ec2, ec2, "us-east-1")


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits. A deadline is short only if tests expect it to pass: no test may depend on being fast enough."""
    monkeypatch.setattr(aws, "_AWAY_SECONDS", 0.0)
    monkeypatch.setattr(aws, "_FULFILMENT_DEADLINE", 0.02)
    monkeypatch.setattr(aws, "_TERMINATION_DEADLINE", 10.0)
    monkeypatch.setattr(aws, "_POLL_SECONDS", 0.01)
