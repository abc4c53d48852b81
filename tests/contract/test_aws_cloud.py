"""AwsCloud on the mock cloud, with real calls of the official SDK."""

import asyncio
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session

from fixtures.aws import Accounts
from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.aws_api import Timeouts
from optiinfra.clouds.aws_clients import role_clients
from optiinfra.clouds.connections import connect_aws
from optiinfra.clouds.price_book import PriceBook
from optiinfra.clouds.protocol import STEP_TAG, Change, CloudInstance, CloudUnavailable, NotCovered
from tests.contract.engine import Engine

REGION = "us-east-1"
KEY = "opt_1:create_spot_instances"
TYPE = "p4de.24xlarge"


@pytest.fixture
def engine(localstack: Engine) -> Engine:
    return localstack


def role_arn(account: str) -> str:
    return f"arn:aws:iam::{account}:role/optiinfra-platform"


def connect(engine: Engine, account: str) -> AwsCloud:
    url = engine.environment.url("localstack")
    return asyncio.run(connect_aws(url, REGION, role_arn(account), "external", "test", "test"))


def ec2_of(engine: Engine, account: str) -> Any:
    """A client for what the account's owner does."""
    return Accounts(engine.environment.url("localstack")).ec2(REGION, account)


def change(*source_ids: str) -> Change:
    """The change whose step KEY is, approved for these instances."""
    return Change("opt_1", frozenset(source_ids))


def account_with_two_instances(engine: Engine, account: str) -> AwsCloud:
    ec2_of(engine, account).run_instances(ImageId="ami-12345678", InstanceType=TYPE, MinCount=2, MaxCount=2)
    return connect(engine, account)


def test_connect_aws_gives_each_account_one_cloud_of_its_own(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "111111111111")
    assert connect(engine, "111111111111") is cloud
    assert len(asyncio.run(cloud.instances())) == 2
    assert asyncio.run(connect(engine, "222222222222").instances()) == []


def test_accounts_share_clients_and_each_call_is_made_in_its_own(engine: Engine) -> None:
    accounts = ["232323232323", "242424242424", "252525252525"]
    clouds = [account_with_two_instances(engine, account) for account in accounts]
    url = engine.environment.url("localstack")
    first, second = (role_clients(url, REGION, role_arn(each), "external", "test", "test") for each in accounts[:2])
    assert (first.ec2, first.launch) == (second.ec2, second.launch)
    with pytest.raises(LookupError):
        first.ec2.describe_instances()

    async def list_all_at_once() -> list[list[CloudInstance]]:
        return await asyncio.gather(*(cloud.instances() for cloud in clouds * 5))

    listed = [tuple(sorted(one.instance_id for one in each)) for each in asyncio.run(list_all_at_once())]
    assert listed[3:] == listed[:3] * 4
    assert {len(each) for each in listed} == {2}
    assert len({instance_id for each in listed for instance_id in each}) == 6


def test_connect_aws_knows_the_account_by_the_cloud_s_own_word(engine: Engine) -> None:
    assert connect(engine, "171717171717").account_id == "171717171717"


def test_change_affects_no_instance_that_it_was_not_approved_for(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "181818181818")
    first, second = sorted(one.instance_id for one in asyncio.run(cloud.instances()))
    (others,) = asyncio.run(cloud.ensure_instances("opt_2:targets", TYPE, 1, "on-demand", {}))
    for unapproved in (second, others):
        for action in (cloud.terminate, cloud.stop):
            with pytest.raises(NotCovered, match=unapproved):
                asyncio.run(action(change(first), [first, unapproved]))
    assert {one.state for one in asyncio.run(cloud.instances())} == {"running"}
    asyncio.run(cloud.terminate(change(first), [first]))
    states = {one.instance_id: one.state for one in asyncio.run(cloud.instances())}
    assert states == {first: "terminated", second: "running", others: "running"}


def test_instance_of_another_account_is_neither_seen_nor_affected(engine: Engine) -> None:
    ours, theirs = connect(engine, "191919191919"), account_with_two_instances(engine, "202020202020")
    ids = [one.instance_id for one in asyncio.run(theirs.instances())]
    asyncio.run(ours.terminate(change(*ids), ids))
    asyncio.run(ours.stop(change(*ids), ids))
    assert asyncio.run(ours.instances()) == []
    assert {one.state for one in asyncio.run(theirs.instances())} == {"running"}


@pytest.mark.parametrize(("lifecycle", "account"), [("spot", "333333333333"), ("on-demand", "444444444444")])
def test_ensure_instances_repeated_launches_once(engine: Engine, lifecycle: Any, account: str) -> None:
    cloud = account_with_two_instances(engine, account)
    made = asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, lifecycle, {"Name": "vllm-prod-1"}))
    assert asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, lifecycle, {"Name": "vllm-prod-1"})) == made
    shown = {instance.instance_id: instance for instance in asyncio.run(cloud.instances())}
    assert len(shown) == 4
    for instance_id in made:
        assert shown[instance_id].lifecycle == lifecycle
        assert shown[instance_id].tags == {"Name": "vllm-prod-1", STEP_TAG: KEY}


def test_ensure_instances_after_crash_before_tagging_finds_instances(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "555555555555")
    made = asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, "spot", {}))
    ec2_of(engine, "555555555555").delete_tags(Resources=made, Tags=[{"Key": STEP_TAG}])
    assert asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, "spot", {})) == made


def test_terminate_is_idempotent(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "666666666666")
    made = asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, "spot", {}))
    asyncio.run(cloud.terminate(change(), [*made, "i-00000000000000000"]))
    asyncio.run(cloud.terminate(change(), made))
    states = {instance.instance_id: instance.state for instance in asyncio.run(cloud.instances())}
    assert {states[instance_id] for instance_id in made} == {"terminated"}
    assert asyncio.run(cloud.tagged_instances(KEY)) == []


@pytest.mark.parametrize(
    ("lifecycle", "operation", "account"),
    [("spot", "RequestSpotInstances", "888888888888"), ("on-demand", "RunInstances", "999999999999")],
)
def test_ensure_instances_with_lost_response_launches_once(
    engine: Engine, lifecycle: Any, operation: str, account: str
) -> None:
    cloud = account_with_two_instances(engine, account)
    sent: list[AWSPreparedRequest] = []

    def lose_first_response(request: AWSPreparedRequest, **_event: Any) -> None:
        sent.append(request)
        if len(sent) == 1:
            assert URLLib3Session().send(request).status_code == 200
            raise ReadTimeoutError(endpoint_url=request.url)

    url = engine.environment.url("localstack")
    events = role_clients(url, REGION, role_arn(account), "external", "test", "test").launch.meta.events
    events.register(f"before-send.ec2.{operation}", lose_first_response)
    try:
        made = asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, lifecycle, {}))
    finally:
        events.unregister(f"before-send.ec2.{operation}", lose_first_response)  # all accounts share this client
    assert len(made) == 2
    assert len(asyncio.run(cloud.instances())) == 4
    assert len(sent) == 1


def test_cancel_and_terminate_ends_untagged_instances_too(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "121212121212")
    made = asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, "spot", {}))
    ec2_of(engine, "121212121212").delete_tags(Resources=made, Tags=[{"Key": STEP_TAG}])
    assert asyncio.run(cloud.cancel_and_terminate(KEY)) == made
    assert asyncio.run(cloud.cancel_and_terminate(KEY)) == []
    assert len([one for one in asyncio.run(cloud.instances()) if one.state == "running"]) == 2


def test_interrupted_includes_terminated_instance(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "131313131313")
    made = asyncio.run(cloud.ensure_instances(KEY, TYPE, 2, "spot", {}))
    assert asyncio.run(cloud.interrupted_instances(KEY)) == []
    ec2_of(engine, "131313131313").terminate_instances(InstanceIds=made[:1])
    assert asyncio.run(cloud.interrupted_instances(KEY)) == made[:1]


def test_stop_and_start_are_idempotent(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "141414141414")
    ids = sorted(one.instance_id for one in asyncio.run(cloud.instances()))
    for _ in range(2):
        asyncio.run(cloud.stop(change(*ids), ids))
        assert {one.state for one in asyncio.run(cloud.instances())} == {"stopped"}
    for _ in range(2):
        assert asyncio.run(cloud.start(change(*ids), ids)) == ids
        assert {one.state for one in asyncio.run(cloud.instances())} == {"running"}


def test_start_leaves_out_what_was_terminated(engine: Engine) -> None:
    cloud = account_with_two_instances(engine, "151515151515")
    first, second = sorted(one.instance_id for one in asyncio.run(cloud.instances()))
    approved = change(first, second)
    asyncio.run(cloud.terminate(approved, [first]))
    asyncio.run(cloud.stop(approved, [first, second]))
    assert asyncio.run(cloud.start(approved, [first, second])) == [second]


def test_instance_launched_like_another_has_its_settings_and_is_launched_once(engine: Engine) -> None:
    cloud = connect(engine, "161616161616")
    ec2 = ec2_of(engine, "161616161616")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24", AvailabilityZone=f"{REGION}b")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="engines", Description="x", VpcId=vpc)["GroupId"]
    ec2.create_key_pair(KeyName="ops")
    original = ec2.run_instances(
        ImageId="ami-12345678",
        InstanceType="g5.12xlarge",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        SecurityGroupIds=[group],
        KeyName="ops",
        UserData="#!/bin/sh\nexec vllm serve",
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "search"}]}],
    )["Instances"][0]["InstanceId"]
    settings = asyncio.run(cloud.launch_settings([original]))
    assert settings[original]["SubnetId"] == subnet
    assert settings[original]["SecurityGroupIds"] == [group]
    assert settings[original]["KeyName"] == "ops"
    assert settings[original]["Tags"] == {"team": "search"}
    assert settings[original]["Placement"]["AvailabilityZone"] == f"{REGION}b"
    asyncio.run(cloud.terminate(change(original), [original]))
    assert asyncio.run(cloud.launch_settings([original])) == {}

    made = asyncio.run(cloud.launch_like(KEY, settings[original], {"Name": "again"}))
    assert asyncio.run(cloud.launch_like(KEY, settings[original], {"Name": "again"})) == made

    again = asyncio.run(cloud.launch_settings([made]))[made]
    assert again.pop("Tags") == {"team": "search", "Name": "again"}
    assert again == {name: value for name, value in settings[original].items() if name != "Tags"}
    assert asyncio.run(cloud.tagged_instances(KEY)) == [made]


def test_spot_quote_of_the_mock_cloud_is_implausible(engine: Engine) -> None:
    quoted = asyncio.run(connect(engine, "111111111111").spot_quote(TYPE))
    assert quoted is not None
    book = PriceBook.load()
    assert book.spot_price("aws", REGION, TYPE, quoted) == book.spot_price("aws", REGION, TYPE)


def test_connect_aws_to_unreachable_cloud_says_so() -> None:
    with pytest.raises(CloudUnavailable, match="Could not connect"):
        asyncio.run(
            connect_aws(
                "http://127.0.0.1:9", REGION, role_arn("777777777777"), "external", "test", "test", Timeouts(outage=0.0)
            )
        )
