"""`kill -9` at each step of a migration and of its undoing: all is done once, nothing is lost, nothing is left over."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from fixtures import estates
from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import STEPS, undo_name
from tests.helpers import cloud_truth
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.migration import (
    MOVED,
    assert_migrated_once,
    assert_undone_once,
    begun,
    finished,
    migrate,
    spoiled,
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


@pytest.fixture
def acme(private_platform: PrivatePlatform) -> Iterator[Customer]:
    with provisioned(private_platform.document, estates.load(ESTATES / "acme.yaml")) as customer:
        yield customer


def crashed_at(
    customer: Customer, optimization_id: str, steps: Sequence[str], kill: Callable[[], None]
) -> Optimization:
    """Kill as soon as each of the steps has begun; the optimization once it is over."""
    for step in steps:
        begun(customer, optimization_id, step)
        kill()
    return finished(customer, optimization_id)


@pytest.mark.parametrize("step", MIGRATION)
def test_a_crash_at_any_step_loses_and_doubles_nothing(
    private_platform: PrivatePlatform, acme: Customer, step: str
) -> None:
    optimization = crashed_at(acme, migrate(acme), [step], partial(KILLS["orchestrator"], private_platform))

    assert_migrated_once(acme, optimization, MOVED)


@pytest.mark.parametrize("step", UNDONE)
def test_a_crash_while_undoing_restores_everything(
    private_platform: PrivatePlatform, acme: Customer, step: str
) -> None:
    before, running = acme.fleet(MOVED), cloud_truth.running(acme.seeded)

    optimization = crashed_at(acme, spoiled(acme), [undo_name(step)], partial(KILLS["orchestrator"], private_platform))

    assert_undone_once(acme, optimization, MOVED, before, running)


@pytest.mark.parametrize("who", ["runtime", "performance-agent", "application-agent", "supervisor"])
def test_crashes_at_every_step_lose_and_double_nothing(
    private_platform: PrivatePlatform, acme: Customer, who: str
) -> None:
    optimization = crashed_at(acme, migrate(acme), MIGRATION, partial(KILLS[who], private_platform))

    assert_migrated_once(acme, optimization, MOVED)


@pytest.mark.parametrize("who", ["runtime", "supervisor"])
def test_crashes_at_every_step_of_undoing_restore_everything(
    private_platform: PrivatePlatform, acme: Customer, who: str
) -> None:
    before, running = acme.fleet(MOVED), cloud_truth.running(acme.seeded)

    optimization = crashed_at(
        acme, spoiled(acme), [undo_name(step) for step in reversed(UNDONE)], partial(KILLS[who], private_platform)
    )

    assert_undone_once(acme, optimization, MOVED, before, running)
