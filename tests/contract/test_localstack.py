"""The mock cloud as the platform uses it: boto3, accounts told apart by assumed roles."""

from typing import Any

import boto3
import pytest

from tests.contract.engine import Engine

REGION = "us-east-1"


@pytest.fixture
def engine(localstack: Engine) -> Engine:
    return localstack


def ec2(engine: Engine, account: str) -> Any:
    """An EC2 client that has assumed the platform's role in the account."""
    url = engine.environment.url("localstack")
    sts = boto3.client(
        "sts", endpoint_url=url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
    )
    role = f"arn:aws:iam::{account}:role/optiinfra-platform"
    assumed = sts.assume_role(RoleArn=role, RoleSessionName="contract")["Credentials"]
    return boto3.client(
        "ec2",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=assumed["AccessKeyId"],
        aws_secret_access_key=assumed["SecretAccessKey"],
        aws_session_token=assumed["SessionToken"],
    )


def instances(client: Any) -> list[dict[str, Any]]:
    pages = client.get_paginator("describe_instances").paginate()
    return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


def run(client: Any, count: int) -> list[str]:
    made = client.run_instances(ImageId="ami-12345678", InstanceType="p4d.24xlarge", MinCount=count, MaxCount=count)
    return [instance["InstanceId"] for instance in made["Instances"]]


def test_accounts_are_isolated(engine: Engine) -> None:
    first, second = ec2(engine, "911111111111"), ec2(engine, "922222222222")
    started = run(first, 2)
    assert {instance["InstanceId"] for instance in instances(first)} == set(started)
    assert instances(second) == []


def test_instances_keep_their_tags_and_types(engine: Engine) -> None:
    client = ec2(engine, "933333333333")
    (started,) = run(client, 1)
    client.create_tags(Resources=[started], Tags=[{"Key": "optiinfra:step", "Value": "create_spot_instances"}])
    (found,) = instances(client)
    assert found["InstanceType"] == "p4d.24xlarge"
    assert found["Tags"] == [{"Key": "optiinfra:step", "Value": "create_spot_instances"}]


def test_spot_request_creates_a_spot_instance(engine: Engine) -> None:
    client = ec2(engine, "944444444444")
    client.request_spot_instances(
        InstanceCount=1, LaunchSpecification={"ImageId": "ami-12345678", "InstanceType": "g5.12xlarge"}
    )
    assert [instance["InstanceLifecycle"] for instance in instances(client)] == ["spot"]


def test_terminated_instance_is_listed_as_terminated(engine: Engine) -> None:
    client = ec2(engine, "955555555555")
    started = run(client, 1)
    client.terminate_instances(InstanceIds=started)
    assert [instance["State"]["Name"] for instance in instances(client)] == ["terminated"]
