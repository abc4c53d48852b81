"""`kill -9` at each step of a migration and its rollback: every action is done once, nothing is lost or left over."""

from collections.abc import Callable, Sequence

import pytest

from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import STEPS, rollback_step
from tests.helpers.customer import Customer
from tests.helpers.migration import (
    assert_migrated_once,
    assert_rolled_back_once,
    observe,
    start_failing_migration,
    start_migration,
    wait_for_optimization,
    wait_for_step,
)
from tests.helpers.private_platform import PrivatePlatform

MIGRATION = STEPS["spot_migration"]
EXECUTED_BEFORE_FAILURE = MIGRATION[:6]

KILLS: dict[str, Callable[[PrivatePlatform], None]] = {
    "orchestrator": lambda platform: platform.kill("optiinfra.orchestrator"),
    "runtime": lambda platform: platform.kill("optiinfra.runtime"),
    "performance-agent": lambda platform: platform.kill("optiinfra.agents.perf_agent"),
    "application-agent": lambda platform: platform.kill("optiinfra.agents.app_agent"),
    "supervisor": PrivatePlatform.kill_supervisor,
}


def kill_at(
    platform: PrivatePlatform, customer: Customer, optimization_id: str, steps: Sequence[str], process: str
) -> Optimization:
    """Kill the process at the start of each step; returns the optimization after its end."""
    for step in steps:
        wait_for_step(customer, optimization_id, step)
        KILLS[process](platform)
    return wait_for_optimization(customer, optimization_id)


@pytest.mark.parametrize("step", MIGRATION)
def test_migration_with_the_orchestrator_killed_at_a_step_completes_once(
    private_platform: PrivatePlatform, private_acme: Customer, step: str
) -> None:
    before = observe(private_acme)
    optimization_id = start_migration(private_acme)

    optimization = kill_at(private_platform, private_acme, optimization_id, [step], "orchestrator")

    assert_migrated_once(private_acme, optimization, before)


@pytest.mark.parametrize("step", EXECUTED_BEFORE_FAILURE)
def test_rollback_with_the_orchestrator_killed_at_a_step_restores_everything(
    private_platform: PrivatePlatform, private_acme: Customer, step: str
) -> None:
    before = observe(private_acme)
    optimization_id = start_failing_migration(private_acme)

    optimization = kill_at(private_platform, private_acme, optimization_id, [rollback_step(step)], "orchestrator")

    assert_rolled_back_once(private_acme, optimization, before)


@pytest.mark.parametrize("process", ["runtime", "performance-agent", "application-agent", "supervisor"])
def test_migration_with_a_process_killed_at_every_step_completes_once(
    private_platform: PrivatePlatform, private_acme: Customer, process: str
) -> None:
    before = observe(private_acme)
    optimization_id = start_migration(private_acme)

    optimization = kill_at(private_platform, private_acme, optimization_id, MIGRATION, process)

    assert_migrated_once(private_acme, optimization, before)


@pytest.mark.parametrize("process", ["runtime", "supervisor"])
def test_rollback_with_a_process_killed_at_every_step_restores_everything(
    private_platform: PrivatePlatform, private_acme: Customer, process: str
) -> None:
    before = observe(private_acme)
    optimization_id, rollback = (
        start_failing_migration(private_acme),
        [rollback_step(step) for step in reversed(EXECUTED_BEFORE_FAILURE)],
    )

    optimization = kill_at(private_platform, private_acme, optimization_id, rollback, process)

    assert_rolled_back_once(private_acme, optimization, before)
