"""`kill -9` at each step of a migration and of its undoing: all is done once, nothing is lost, nothing is left over."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import httpx
import pytest

from fixtures import estates
from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import FINAL, STEPS, undo_name
from testbed.waiting import wait_until
from tests.helpers import cloud_truth
from tests.helpers.crashing import assert_migrated_once, assert_undone_once
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.private_platform import PrivatePlatform

MOVED = "vllm-prod-1"
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


def seen(customer: Customer, optimization_id: str, name: str) -> Optimization | None:
    """The optimization once the step has begun, or is over altogether."""
    optimization = customer.optimization(optimization_id)
    begun = {step.name for step in (*optimization.execution_steps, *optimization.rollback_steps)}
    return optimization if name in begun or optimization.status in FINAL else None


def begun(customer: Customer, optimization_id: str, name: str) -> None:
    """Wait until the step has begun, whoever is away meanwhile."""
    wait_until(
        lambda: seen(customer, optimization_id, name),
        f"{name} to begin",
        90,
        transient=(httpx.TransportError, AssertionError),
        poll=0.01,
    )


def crashed_at(
    customer: Customer, optimization_id: str, steps: Sequence[str], kill: Callable[[], None]
) -> Optimization:
    """Kill as soon as each of the steps has begun; the optimization once it is over."""
    for step in steps:
        begun(customer, optimization_id, step)
        kill()
    return wait_until(
        lambda: customer.optimization(optimization_id),
        f"optimization {optimization_id} to end after the crash",
        120,
        accept=lambda optimization: optimization.status in FINAL,
        transient=(httpx.TransportError, AssertionError),
        poll=0.2,
    )


def migrate(customer: Customer) -> str:
    """Have the migration approved; the optimization's id."""
    return str(customer.post(f"/recommendations/{customer.analyzed('cost')[MOVED].id}/approve")["optimization_id"])


def spoiled(customer: Customer) -> str:
    """A migration that fails at its last stage, and so undoes all that was done; the optimization's id."""
    optimization_id = migrate(customer)
    begun(customer, optimization_id, "full_migration")
    customer.break_fleet({"kind": "canary_latency", "factor": 6.0, "deployment": MOVED})
    return optimization_id


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
