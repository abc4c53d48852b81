"""The policies of the role that a customer creates for the platform in an AWS account. Pure."""

from collections.abc import Iterable
from typing import Any

from optiinfra.clouds.protocol import STEP_TAG

Policy = dict[str, Any]
"""An IAM policy document, as JSON."""

_VERSION = "2012-10-17"
_INSTANCES = "arn:aws:ec2:*:*:instance/*"
_SPOT_REQUESTS = "arn:aws:ec2:*:*:spot-instances-request/*"
_ALSO_USED_BY_LAUNCHES = ("image/*", "key-pair/*", "network-interface/*", "placement-group/*", "security-group/*")
_ALSO_CREATED_BY_LAUNCHES = ("subnet/*", "volume/*")


def trust_policy(principal_arn: str, external_id: str) -> Policy:
    """Who may assume the role: the platform, and only for the customer that this external id was issued to."""
    statement = {
        "Sid": "OptiInfraAssumesThisRole",
        "Effect": "Allow",
        "Principal": {"AWS": principal_arn},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
    }
    return {"Version": _VERSION, "Statement": [statement]}


def permissions_policy(regions: Iterable[str]) -> Policy:
    """What the role may do: the calls of `clouds/aws.py`, in these regions, and by our tag where EC2 can check it.

    EC2 cannot restrict what is described, nor know which of the owner's instances a change was approved for. So stops
    and terminations are not restricted by tag: the platform itself checks each instance before.
    """
    in_regions = {"StringEquals": {"aws:RequestedRegion": sorted(regions)}}
    created_for_a_step = in_regions | {"Null": {f"aws:RequestTag/{STEP_TAG}": "false"}}
    of_a_step = in_regions | {"Null": {f"aws:ResourceTag/{STEP_TAG}": "false"}}
    launches = ["ec2:RequestSpotInstances", "ec2:RunInstances"]
    others = [f"arn:aws:ec2:*:*:{kind}" for kind in (*_ALSO_USED_BY_LAUNCHES, *_ALSO_CREATED_BY_LAUNCHES)]
    reads = (
        "ec2:DescribeInstanceAttribute",
        "ec2:DescribeInstances",
        "ec2:DescribeSpotInstanceRequests",
        "ec2:DescribeSpotPriceHistory",
    )
    changes = ["ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"]
    created = [_INSTANCES, _SPOT_REQUESTS]
    statements = [
        _allow("ReadTheInventory", reads, ["*"], in_regions),
        _allow("LaunchTagged", [*launches, "ec2:CreateTags"], created, created_for_a_step),
        _allow("LaunchWithExistingResources", launches, others, in_regions),
        _allow("CancelOwnSpotRequests", ["ec2:CancelSpotInstanceRequests"], [_SPOT_REQUESTS], of_a_step),
        _allow("StopAndTerminate", changes, [_INSTANCES], in_regions),
    ]
    return {"Version": _VERSION, "Statement": statements}


def _allow(sid: str, actions: Iterable[str], resources: list[str], condition: Policy) -> Policy:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resources, "Condition": condition}
