"""Derives the parameters of RunInstances from a described EC2 instance. Pure."""

from typing import Any

from optiinfra.clouds.protocol import CUSTOMER_TAG, STEP_TAG, LaunchSettings

Shape = dict[str, Any]

_COPIED = ("ImageId", "InstanceType", "SubnetId", "KeyName", "EbsOptimized")
_PLACEMENT = ("AvailabilityZone", "Tenancy", "GroupName")
_METADATA = ("HttpTokens", "HttpEndpoint", "HttpPutResponseHopLimit", "InstanceMetadataTags")
_OURS = (STEP_TAG, CUSTOMER_TAG)


def launch_settings(instance: Shape, user_data: str | None) -> LaunchSettings:
    """Parameters of RunInstances, from DescribeInstances and the instance's user data (base64).

    Left out is what AWS sets by itself, and tags of our own. Volumes are those of the machine image: data that was
    written to them is not kept.
    """
    settings: LaunchSettings = {name: instance[name] for name in _COPIED if instance.get(name) not in (None, "")}
    if groups := [group["GroupId"] for group in instance.get("SecurityGroups", [])]:
        settings["SecurityGroupIds"] = sorted(groups)
    if profile := instance.get("IamInstanceProfile", {}).get("Arn"):
        settings["IamInstanceProfile"] = {"Arn": profile}
    if placement := _chosen(instance.get("Placement", {}), _PLACEMENT):
        settings["Placement"] = placement
    if metadata := _chosen(instance.get("MetadataOptions", {}), _METADATA):
        settings["MetadataOptions"] = metadata
    if instance.get("Monitoring", {}).get("State") == "enabled":
        settings["Monitoring"] = {"Enabled": True}
    if user_data:
        settings["UserData"] = user_data
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", []) if not tag["Key"].startswith("aws:")}
    settings["Tags"] = {name: value for name, value in sorted(tags.items()) if name not in _OURS}
    return settings


def _chosen(described: Shape, names: tuple[str, ...]) -> Shape:
    return {name: described[name] for name in names if described.get(name) not in (None, "")}
