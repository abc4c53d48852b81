"""Faults of the customer's cloud: a migration is completed or rolled back, and its result says why."""

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
from optiinfra.clouds.connections import connect_aws
from optiinfra.clouds.protocol import RoleDenied
from optiinfra.domain.optimization import STEPS
from testbed.waiting import wait_until
from tests.helpers import cloud_state
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
from tests.helpers.private_platform import PrivatePlatform, private_platform_over

CLOUD_OUTAGE = {"kind": "cloud_errors", "rate": 1.0, "codes": ["RequestLimitExceeded", "ServiceUnavailable"]}
OUTAGE_DURATION = timedelta(seconds=3)


@pytest.fixture(scope="module")
def slow_environment() -> Iterator[dict[str, Any]]:
    """An environment in which two simulated minutes take a few real seconds, and interruptions are noticed sooner."""
    name, often = f"faults-{os.getpid()}", {"SPOT_WATCH_SECONDS": "0.5"}
    with (
        own_environment(name, "--speed", "25") as environment,
        private_platform_over(environment.document, f"{name}-often", often, proxied=()) as platform,
    ):
        yield platform.document


def wait_out(since: datetime) -> None:
    """Wait until a fault that began then has lasted for a while."""
    wait_until(
        lambda: now() - since > OUTAGE_DURATION, "an outage of some seconds", 2 * OUTAGE_DURATION.total_seconds()
    )


def rollback_step_started_at(customer: Customer, optimization_id: str) -> datetime:
    """The start of the rollback step in progress, as soon as there is one."""
    seen = wait_until(
        lambda: customer.optimization(optimization_id),
        "a rollback step to start",
        90,
        accept=lambda seen: bool(seen.rollback_steps),
    )
    assert seen.status == "rolling_back", seen.result
    return seen.rollback_steps[-1].started_at


def error_of(optimization: Optimization) -> str:
    """The error in the result of a failed optimization."""
    assert optimization.result is not None
    assert not optimization.result.success
    assert optimization.result.error is not None
    return optimization.result.error


@pytest.mark.parametrize("step", ["create_spot_instances", "full_migration"])
def test_migration_during_a_spot_interruption_is_rolled_back_before_requests_drop(
    slow_environment: dict[str, Any], step: str
) -> None:
    with provisioned(slow_environment, estates.load(ESTATES / "acme.yaml")) as acme:
        before = observe(acme)
        optimization_id = start_migration(acme)
        wait_for_step(acme, optimization_id, step)
        acme.inject_fault({"kind": "spot_interruption", "deployment": MIGRATED})

        optimization = acme.wait_for_optimization(optimization_id)

        assert "the cloud reclaims spot instances" in error_of(optimization)
        assert_rolled_back_once(acme, optimization, before)
        assert "terminate_ondemand" not in [step.name for step in optimization.execution_steps]


def test_migration_without_spot_capacity_is_rolled_back_without_changes(acme: Customer) -> None:
    before = observe(acme)
    acme.inject_fault({"kind": "insufficient_capacity", "lifecycle": "spot"})

    optimization = acme.wait_for_optimization(start_migration(acme))

    assert "InsufficientInstanceCapacity: We currently do not have sufficient p4de.24xlarge" in error_of(optimization)
    assert [step.name for step in optimization.execution_steps] == ["create_spot_instances"]
    assert_rolled_back_once(acme, optimization, before)


def test_migration_with_occasional_cloud_errors_completes_once(acme: Customer) -> None:
    before = observe(acme)
    acme.inject_fault({**CLOUD_OUTAGE, "rate": 0.3, "codes": ["RequestLimitExceeded", "Throttling", "InternalError"]})

    optimization = acme.wait_for_optimization(start_migration(acme))

    assert_migrated_once(acme, optimization, before)


def test_migration_during_a_cloud_outage_waits_and_completes(acme: Customer) -> None:
    before = observe(acme)
    optimization_id = start_migration(acme)
    wait_for_step(acme, optimization_id, "scale_to_50_percent")
    acme.inject_fault(CLOUD_OUTAGE)
    wait_out(now())
    held = acme.optimization(optimization_id)
    assert held.status == "running", held.result
    assert held.execution_steps[-1].name in ("scale_to_50_percent", "validate_50_percent"), (
        "it cannot continue during the outage"
    )
    acme.clear_faults()

    assert_migrated_once(acme, acme.wait_for_optimization(optimization_id), before)


def test_migration_with_a_revoked_role_fails_and_its_rollback_waits_for_the_role(acme: Customer) -> None:
    before = observe(acme)
    optimization_id = start_migration(acme)
    wait_for_step(acme, optimization_id, "validate_canary")
    acme.inject_fault({"kind": "assume_role_denied"})
    wait_out(rollback_step_started_at(acme, optimization_id))
    assert acme.optimization(optimization_id).status == "rolling_back"
    acme.clear_faults()

    optimization = acme.wait_for_optimization(optimization_id)

    assert "UnauthorizedOperation: You are not authorized" in error_of(optimization)
    assert_rolled_back_once(acme, optimization, before)


def test_rollback_without_on_demand_capacity_retries_until_there_is_some(acme: Customer) -> None:
    running = cloud_state.running(acme.seeded)
    optimization_id = start_migration(acme)
    assert acme.wait_for_optimization(optimization_id).status == "completed"
    acme.inject_fault({"kind": "insufficient_capacity", "lifecycle": "on-demand"})
    acme.post(f"/optimizations/{optimization_id}/rollback")
    wait_out(rollback_step_started_at(acme, optimization_id))
    assert [step.status for step in acme.optimization(optimization_id).rollback_steps] == ["running"]
    assert ("p4de.24xlarge", "spot") in cloud_state.running(acme.seeded), (
        "no instance is terminated before its replacement runs"
    )
    acme.clear_faults()

    optimization = acme.wait_for_rollback(optimization_id)

    assert optimization.status == "rolled_back", optimization.result
    assert len(optimization.rollback_steps) == len(STEPS["spot_migration"])
    assert optimization.result is not None
    assert optimization.result.original_state_restored
    assert cloud_state.running(acme.seeded) == running
    assert acme.fleet(MIGRATED)["requests_dropped"] == 0


def test_account_that_denies_its_role_is_failed_until_it_allows_it(acme: Customer) -> None:
    cloud, front = acme.seeded.clouds[0], acme.environment["urls"]["cloud-front"]
    body = {"cloud_provider": "aws", "region": cloud.region, "iam_role_arn": cloud.role_arn}
    acme.inject_fault({"kind": "assume_role_denied"})
    acme.post(f"/customers/{acme.id}/onboard", body)
    failed = wait_until(acme.infrastructure, "the account to fail", 30, accept=lambda seen: seen.status == "failed")
    assert failed.error is not None
    assert "UnauthorizedOperation: You are not authorized" in failed.error
    # A role that the platform has not assumed yet is refused at AssumeRole.
    with pytest.raises(RoleDenied, match="AssumeRole: AccessDenied: not authorized to assume a role"):
        asyncio.run(connect_aws(front, cloud.region, f"{cloud.role_arn}-new", "any", "test", "test"))
    acme.clear_faults()
    acme.post(f"/customers/{acme.id}/onboard", body)
    recovered = wait_until(acme.infrastructure, "discovery", 30, accept=lambda seen: seen.status == "discovered")
    assert recovered.error is None


@pytest.mark.parametrize("private_platform", [{"ROLLBACK_RETRY_SECONDS": "3"}], indirect=True, ids=["3 s"])
def test_rollback_refused_past_its_deadline_fails_with_both_causes(private_platform: PrivatePlatform) -> None:
    with provisioned(private_platform.document, estates.load(ESTATES / "acme.yaml")) as acme:
        optimization_id = start_migration(acme)
        wait_for_step(acme, optimization_id, "validate_canary")
        acme.inject_fault({"kind": "assume_role_denied"})

        optimization = acme.wait_for_optimization(optimization_id)

        assert optimization.status == "failed"
        assert re.search(r"; then undo_\w+ failed: ", error_of(optimization))
        assert error_of(optimization).count("UnauthorizedOperation") == 2, (
            "the cause of the failure and of the failed rollback"
        )
        assert optimization.result is not None
        assert not optimization.result.original_state_restored


def test_migration_to_engines_that_load_slowly_completes(acme: Customer) -> None:
    before = observe(acme)
    acme.inject_fault({"kind": "slow_start", "seconds": 300})

    assert_migrated_once(acme, acme.wait_for_optimization(start_migration(acme)), before)


@pytest.mark.parametrize("step", ["validate_canary", "full_migration"])
def test_migration_with_a_crashed_source_replica_replaces_it_like_the_others(acme: Customer, step: str) -> None:
    optimization_id = start_migration(acme)
    wait_for_step(acme, optimization_id, step)
    acme.inject_fault({"kind": "replica_crash", "deployment": MIGRATED})

    optimization = acme.wait_for_optimization(optimization_id)

    assert optimization.status == "completed", optimization.result
    fleet = acme.fleet(MIGRATED)
    assert [replica["state"] for replica in fleet["replicas"]] == ["ready"] * 2, "no dead replica is left"
    assert cloud_state.running(acme.seeded, MIGRATED) == [("p4de.24xlarge", "spot")] * 2
    assert optimization.result is not None
    assert 0 < (optimization.result.requests_dropped or 0) <= fleet["requests_dropped"]


def test_migration_behind_a_gateway_that_drops_requests_reports_them(acme: Customer) -> None:
    acme.inject_fault({"kind": "gateway_drop", "rate": 0.05, "deployment": MIGRATED})

    optimization = acme.wait_for_optimization(start_migration(acme))

    assert optimization.status == "completed", optimization.result
    assert optimization.result is not None
    assert optimization.result.requests_dropped
