"""The policies of the role for the platform."""

import inspect
import re
from typing import Any

import botocore.session

from optiinfra.clouds import aws, aws_api, aws_clients
from optiinfra.clouds.aws_trust import permissions_policy, trust_policy

PRINCIPAL = "arn:aws:iam::123456789012:role/optiinfra-orchestrator"
REGIONS = ["us-west-2", "eu-west-1"]


def statements(policy: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = policy["Statement"]
    return found


def called_actions() -> set[str]:
    """The EC2 actions that the source of the AWS client calls."""
    source = "".join(inspect.getsource(module) for module in (aws, aws_api, aws_clients))
    names = set(re.findall(r"(?:\bec2|\blaunch)\.([a-z_]+)\b", source)) | set(re.findall(r'paginator\("(\w+)"', source))
    session = botocore.session.get_session()
    client = session.create_client("ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    return {f"ec2:{client.meta.method_to_api_mapping[name]}" for name in names - {"get_paginator"}}


def test_role_trusts_the_platform_with_the_external_id_only() -> None:
    assert trust_policy(PRINCIPAL, "ext-1") == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "OptiInfraAssumesThisRole",
                "Effect": "Allow",
                "Principal": {"AWS": PRINCIPAL},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": "ext-1"}},
            }
        ],
    }


def test_role_may_do_what_the_platform_calls_and_nothing_else() -> None:
    allowed = [action for one in statements(permissions_policy(REGIONS)) for action in one["Action"]]
    assert set(allowed) == called_actions()


def test_every_permission_is_limited_to_the_regions() -> None:
    for one in statements(permissions_policy(REGIONS)):
        assert one["Effect"] == "Allow"
        assert one["Condition"]["StringEquals"] == {"aws:RequestedRegion": ["eu-west-1", "us-west-2"]}, one["Sid"]
        reads = all(action.startswith("ec2:Describe") for action in one["Action"])
        assert (one["Resource"] == ["*"]) is reads, one["Sid"]


def test_permission_to_create_or_tag_requires_the_step_tag() -> None:
    for one in statements(permissions_policy(REGIONS)):
        creates = {"ec2:RunInstances", "ec2:RequestSpotInstances", "ec2:CreateTags"}.intersection(one["Action"])
        created = [each for each in one["Resource"] if "instance/" in each or "spot-instances-request/" in each]
        if creates and created:
            assert one["Condition"]["Null"] == {"aws:RequestTag/optiinfra:step": "false"}, one["Sid"]
        elif created and "ec2:CancelSpotInstanceRequests" in one["Action"]:
            assert one["Condition"]["Null"] == {"aws:ResourceTag/optiinfra:step": "false"}, one["Sid"]
        elif creates:
            assert "ec2:CreateTags" not in creates, one["Sid"]
