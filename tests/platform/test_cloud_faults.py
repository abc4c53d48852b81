"""Trouble with the customer's cloud: whatever it is, a migration ends done or undone, and says why in words."""

import asyncio
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from fixtures import estates
from optiinfra.api.common import now
from optiinfra.api.recommendations import Optimization
from optiinfra.clouds.aws import connect_aws
from optiinfra.clouds.protocol import RoleDenied
from optiinfra.domain.optimization import STEPS
from testbed.waiting import wait_until
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.migration import (
    MIGRATED,
    assert_migrated_once,
    assert_rolled_back_once,
    observe,
    start_migration,
    wait_for_step,
)
from tests.helpers.own_environment import own_environment
from tests.helpers.private_platform import PrivatePlatform

UNHEARD = {"kind": "cloud_errors", "rate": 1.0, "codes": ["RequestLimitExceeded", "ServiceUnavailable"]}
OUTAGE = timedelta(seconds=3)


@pytest.fixture(scope="module")
def slow_environment() -> Iterator[dict[str, Any]]:
    """An environment in which two simulated minutes are some real seconds."""
    with own_environment(f"faults-{os.getpid()}", "--speed", "25") as environment:
        yield environment.document


def outlast(since: datetime) -> None:
    """Wait until a fault has lasted for a while from then on."""
    wait_until(lambda: now() - since > OUTAGE, "an outage of some seconds", 2 * OUTAGE.total_seconds())


def undoing_since(customer: Customer, optimization_id: str) -> datetime:
    """When the step of undoing began that is under way, once one is."""
    seen = wait_until(
        lambda: customer.optimization(optimization_id), "undoing", 90, accept=lambda seen: bool(seen.rollback_steps)
    )
    assert seen.status == "rolling_back", seen.result
    return seen.rollback_steps[-1].started_at


def error_of(optimization: Optimization) -> str:
    """What the result says went wrong."""
    assert optimization.result is not None
    assert not optimization.result.success
    assert optimization.result.error is not None
    return optimization.result.error


@pytest.mark.parametrize("struck_at", ["create_spot_instances", "full_migration"])
def test_an_interruption_is_noticed_in_time_for_the_traffic(slow_environment: dict[str, Any], struck_at: str) -> None:
    with provisioned(slow_environment, estates.load(ESTATES / "acme.yaml")) as acme:
        before = observe(acme)
        optimization_id = start_migration(acme)
        wait_for_step(acme, optimization_id, struck_at)
        acme.inject_fault({"kind": "spot_interruption", "deployment": MIGRATED})

        optimization = acme.wait_for_optimization(optimization_id)

        assert "the cloud takes back spot instances" in error_of(optimization)
        assert_rolled_back_once(acme, optimization, before)
        assert "terminate_ondemand" not in [step.name for step in optimization.execution_steps]


def test_without_spot_capacity_nothing_is_changed(acme: Customer) -> None:
    before = observe(acme)
    acme.inject_fault({"kind": "insufficient_capacity", "lifecycle": "spot"})

    optimization = acme.wait_for_optimization(start_migration(acme))

    assert "InsufficientInstanceCapacity: We currently do not have sufficient p4de.24xlarge" in error_of(optimization)
    assert [step.name for step in optimization.execution_steps] == ["create_spot_instances"]
    assert_rolled_back_once(acme, optimization, before)


def test_a_cloud_that_errs_now_and_then_holds_up_nothing_and_doubles_nothing(acme: Customer) -> None:
    before = observe(acme)
    acme.inject_fault({**UNHEARD, "rate": 0.3, "codes": ["RequestLimitExceeded", "Throttling", "InternalError"]})

    optimization = acme.wait_for_optimization(start_migration(acme))

    assert_migrated_once(acme, optimization, before)


def test_a_cloud_that_is_away_for_a_while_is_waited_for(acme: Customer) -> None:
    before = observe(acme)
    optimization_id = start_migration(acme)
    wait_for_step(acme, optimization_id, "scale_to_50_percent")
    acme.inject_fault(UNHEARD)
    outlast(now())
    held = acme.optimization(optimization_id)
    assert held.status == "running", held.result
    assert held.execution_steps[-1].name in ("scale_to_50_percent", "validate_50_percent"), "it cannot go on meanwhile"
    acme.clear_faults()

    assert_migrated_once(acme, acme.wait_for_optimization(optimization_id), before)


def test_a_role_taken_away_ends_the_change_and_undoing_waits_for_it(acme: Customer) -> None:
    before = observe(acme)
    optimization_id = start_migration(acme)
    wait_for_step(acme, optimization_id, "validate_canary")
    acme.inject_fault({"kind": "assume_role_denied"})
    outlast(undoing_since(acme, optimization_id))
    assert acme.optimization(optimization_id).status == "rolling_back"
    acme.clear_faults()

    optimization = acme.wait_for_optimization(optimization_id)

    assert "UnauthorizedOperation: You are not authorized" in error_of(optimization)
    assert_rolled_back_once(acme, optimization, before)


def test_what_is_to_come_back_is_asked_for_until_there_is_capacity(acme: Customer) -> None:
    running = cloud_truth.running(acme.seeded)
    optimization_id = start_migration(acme)
    assert acme.wait_for_optimization(optimization_id).status == "completed"
    acme.inject_fault({"kind": "insufficient_capacity", "lifecycle": "on-demand"})
    acme.post(f"/optimizations/{optimization_id}/rollback")
    outlast(undoing_since(acme, optimization_id))
    assert [step.status for step in acme.optimization(optimization_id).rollback_steps] == ["running"]
    assert ("p4de.24xlarge", "spot") in cloud_truth.running(acme.seeded), "nothing goes before its successor is there"
    acme.clear_faults()

    optimization = acme.wait_for_rollback(optimization_id)

    assert optimization.status == "rolled_back", optimization.result
    assert len(optimization.rollback_steps) == len(STEPS["spot_migration"])
    assert optimization.result is not None
    assert optimization.result.original_state_restored
    assert cloud_truth.running(acme.seeded) == running
    assert acme.fleet(MIGRATED)["requests_dropped"] == 0


def test_an_account_that_denies_its_role_is_shown_as_failed_until_it_is_mended(acme: Customer) -> None:
    cloud, front = acme.seeded.clouds[0], acme.environment["urls"]["cloud-front"]
    body = {"cloud_provider": "aws", "region": cloud.region, "iam_role_arn": cloud.role_arn}
    acme.inject_fault({"kind": "assume_role_denied"})
    acme.post(f"/customers/{acme.id}/onboard", body)
    failed = wait_until(acme.infrastructure, "the account to fail", 30, accept=lambda seen: seen.status == "failed")
    assert failed.error is not None
    assert "UnauthorizedOperation: You are not authorized" in failed.error
    # A role of the account that the platform has not taken yet is refused where it is taken.
    with pytest.raises(RoleDenied, match="AssumeRole: AccessDenied: not authorized to assume a role"):
        asyncio.run(connect_aws(front, cloud.region, f"{cloud.role_arn}-new", None, "test", "test"))
    acme.clear_faults()
    acme.post(f"/customers/{acme.id}/onboard", body)
    mended = wait_until(acme.infrastructure, "discovery", 30, accept=lambda seen: seen.status == "discovered")
    assert mended.error is None


@pytest.mark.parametrize("private_platform", [{"UNDO_PATIENCE_SECONDS": "3"}], indirect=True, ids=["impatient"])
def test_undoing_that_is_refused_for_long_ends_and_says_so(private_platform: PrivatePlatform) -> None:
    with provisioned(private_platform.document, estates.load(ESTATES / "acme.yaml")) as acme:
        optimization_id = start_migration(acme)
        wait_for_step(acme, optimization_id, "validate_canary")
        acme.inject_fault({"kind": "assume_role_denied"})

        optimization = acme.wait_for_optimization(optimization_id)

        assert optimization.status == "failed"
        assert re.search(r"; then undo_\w+ failed: ", error_of(optimization))
        assert error_of(optimization).count("UnauthorizedOperation") == 2, "why it failed, and why it is not undone"
        assert optimization.result is not None
        assert not optimization.result.original_state_restored


def test_engines_that_load_slowly_are_waited_for(acme: Customer) -> None:
    before = observe(acme)
    acme.inject_fault({"kind": "slow_start", "seconds": 300})

    assert_migrated_once(acme, acme.wait_for_optimization(start_migration(acme)), before)


@pytest.mark.parametrize("step", ["validate_canary", "full_migration"])
def test_an_old_engine_that_crashes_is_replaced_like_the_others(acme: Customer, step: str) -> None:
    optimization_id = start_migration(acme)
    wait_for_step(acme, optimization_id, step)
    acme.inject_fault({"kind": "replica_crash", "deployment": MIGRATED})

    optimization = acme.wait_for_optimization(optimization_id)

    assert optimization.status == "completed", optimization.result
    fleet = acme.fleet(MIGRATED)
    assert [replica["state"] for replica in fleet["replicas"]] == ["ready"] * 2, "nothing dead is left behind"
    assert cloud_truth.running(acme.seeded, MIGRATED) == [("p4de.24xlarge", "spot")] * 2
    assert optimization.result is not None
    assert 0 < (optimization.result.requests_dropped or 0) <= fleet["requests_dropped"]


def test_a_gateway_that_drops_is_reported(acme: Customer) -> None:
    acme.inject_fault({"kind": "gateway_drop", "rate": 0.05, "deployment": MIGRATED})

    optimization = acme.wait_for_optimization(start_migration(acme))

    assert optimization.status == "completed", optimization.result
    assert optimization.result is not None
    assert optimization.result.requests_dropped
