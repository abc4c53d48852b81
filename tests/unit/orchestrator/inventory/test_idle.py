"""When an instance becomes idle and when it no longer is."""

import pytest

from optiinfra.domain.recommendation import InstanceState
from optiinfra.orchestrator.inventory.idle import IdleChanges, KnownInstance, idle_changes


def changes_of(state: InstanceState, *, idle: bool, hosting: bool) -> IdleChanges:
    return idle_changes([KnownInstance("i-1", state, idle)], {"i-1", "i-2"} if hosting else {"i-2"})


def test_idle_changes_running_instance_without_engine_begins_idle() -> None:
    assert changes_of("running", idle=False, hosting=False) == IdleChanges(began={"i-1"}, ended=set())


def test_idle_changes_instance_that_stays_idle_changes_nothing() -> None:
    assert changes_of("running", idle=True, hosting=False) == IdleChanges(set(), set())


def test_idle_changes_instance_that_hosts_an_engine_again_ends_idle() -> None:
    assert changes_of("running", idle=True, hosting=True) == IdleChanges(began=set(), ended={"i-1"})


@pytest.mark.parametrize("state", ["pending", "stopped", "terminated"])
def test_idle_changes_instance_that_does_not_run_ends_idle(state: InstanceState) -> None:
    assert changes_of(state, idle=True, hosting=False) == IdleChanges(began=set(), ended={"i-1"})
    assert changes_of(state, idle=False, hosting=False) == IdleChanges(set(), set())
