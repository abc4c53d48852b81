"""Accounts that were entered: kept by all arguments, forgotten by external id."""

import pytest

from optiinfra.clouds import connections
from optiinfra.clouds.aws import AwsCloud
from optiinfra.clouds.aws_clients import RoleClients
from optiinfra.clouds.protocol import RoleDenied
from tests.unit.clouds.ec2 import Ec2

pytestmark = pytest.mark.anyio


class Sts:
    """Counts how often a role is assumed; denies those of `denied`."""

    def __init__(self) -> None:
        self.assumed: list[tuple[object, ...]] = []
        self.denied: set[str] = set()

    def role_clients(self, *account: str) -> RoleClients:
        self.assumed.append(account)
        if account[2] in self.denied:
            raise RoleDenied("AssumeRole: AccessDenied")
        return Ec2().clients


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Sts:
    sts = Sts()
    monkeypatch.setattr(connections, "role_clients", sts.role_clients)
    connections.forget("ext-1")
    connections.forget("ext-2")
    return sts


async def enter(role: str, external_id: str, region: str = "us-east-1") -> AwsCloud:
    return await connections.connect_aws("http://cloud", region, role, external_id, "key", "secret")


async def test_role_is_assumed_once_for_each_role_region_and_external_id(sts: Sts) -> None:
    variants = [("role-1", "ext-1"), ("role-2", "ext-1"), ("role-1", "ext-2"), ("role-1", "ext-1", "eu-west-1")]
    entered = [await enter(*variant) for variant in variants]
    assert len(set(entered)) == len(variants)
    assert [await enter(*variant) for variant in variants] == entered
    assert len(sts.assumed) == len(variants)


async def test_denied_role_is_assumed_again(sts: Sts) -> None:
    sts.denied = {"role-1"}
    with pytest.raises(RoleDenied):
        await enter("role-1", "ext-1")
    sts.denied = set()
    assert await enter("role-1", "ext-1") is await enter("role-1", "ext-1")


async def test_forget_drops_all_roles_with_the_external_id_and_no_other(sts: Sts) -> None:
    mine, also_mine = await enter("role-1", "ext-1"), await enter("role-2", "ext-1", "eu-west-1")
    other = await enter("role-1", "ext-2")
    connections.forget("ext-1")
    assert await enter("role-1", "ext-1") is not mine
    assert await enter("role-2", "ext-1", "eu-west-1") is not also_mine
    assert await enter("role-1", "ext-2") is other
