"""`kill -9` at each step of a migration and of its undoing: all is done once, nothing is lost, nothing is left over."""

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
UNDONE = MIGRATION[:6]

KILLS: dict[str, Callable[[PrivatePlatform], None]] = {
    "orchestrator": lambda platform: platform.kill("optiinfra.orchestrator"),
    "runtime": lambda platform: platform.kill("optiinfra.runtime"),
    "performance-agent": lambda platform: platform.kill("optiinfra.agents.perf_agent"),
    "application-agent": lambda platform: platform.kill("optiinfra.agents.app_agent"),
    "supervisor": PrivatePlatform.kill_supervisor,
}


def crashed_at(
    platform: PrivatePlatform, customer: Customer, optimization_id: str, steps: Sequence[str], who: str
) -> Optimization:
    """Kill the process at the start of each step; returns the optimization after its end."""
    for step in steps:
        wait_for_step(customer, optimization_id, step)
        KILLS[who](platform)
    return wait_for_optimization(customer, optimization_id)


@pytest.mark.parametrize("step", MIGRATION)
def test_a_crash_at_any_step_loses_and_doubles_nothing(
    private_platform: PrivatePlatform, private_acme: Customer, step: str
) -> None:
    before = observe(private_acme)
    optimization_id = start_migration(private_acme)

    optimization = crashed_at(private_platform, private_acme, optimization_id, [step], "orchestrator")

    assert_migrated_once(private_acme, optimization, before)


@pytest.mark.parametrize("step", UNDONE)
def test_a_crash_while_undoing_restores_everything(
    private_platform: PrivatePlatform, private_acme: Customer, step: str
) -> None:
    before = observe(private_acme)
    optimization_id = start_failing_migration(private_acme)

    optimization = crashed_at(private_platform, private_acme, optimization_id, [rollback_step(step)], "orchestrator")

    assert_rolled_back_once(private_acme, optimization, before)


@pytest.mark.parametrize("who", ["runtime", "performance-agent", "application-agent", "supervisor"])
def test_crashes_at_every_step_lose_and_double_nothing(
    private_platform: PrivatePlatform, private_acme: Customer, who: str
) -> None:
    before = observe(private_acme)
    optimization_id = start_migration(private_acme)

    optimization = crashed_at(private_platform, private_acme, optimization_id, MIGRATION, who)

    assert_migrated_once(private_acme, optimization, before)


@pytest.mark.parametrize("who", ["runtime", "supervisor"])
def test_crashes_at_every_step_of_undoing_restore_everything(
    private_platform: PrivatePlatform, private_acme: Customer, who: str
) -> None:
    before = observe(private_acme)
    optimization_id, undoing = start_failing_migration(private_acme), [rollback_step(step) for step in reversed(UNDONE)]

    optimization = crashed_at(private_platform, private_acme, optimization_id, undoing, who)

    assert_rolled_back_once(private_acme, optimization, before)
