"""Performance test 1: twenty concurrent spot migrations of ten tenants, each executed once.

The simulated fleet is three times slower than usual. A real migration waits nearly all the time, for models to load and
for measurements, and the platform must spend these waits together. At the usual speed they are so short that the
processors of this machine, which also simulates eleven customers and their clouds, are the limit.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from fixtures import estates
from optiinfra.api import calls
from optiinfra.api.recommendations import Optimization
from optiinfra.domain.optimization import FINAL
from testbed.figures import Figures
from testbed.waiting import stretched, wait_until
from tests.helpers import cloud_state
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer
from tests.helpers.migration_checks import FinishedMigration, ObservedEstate, Violations, find_violations
from tests.helpers.own_environment import own_environment

pytestmark = pytest.mark.performance

TENANTS = 10
DEPLOYMENTS = {"chat": ("g5.xlarge", 3), "summaries": ("g6.12xlarge", 2)}
"""Type and number of the instances of each deployment."""
FLEET_SPEED = "100"
MIGRATION_SECONDS = 120.0


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, Any]]:
    """An environment with a slower fleet, whose stores are consistent afterwards."""
    with own_environment(f"migrations-{os.getpid()}", "--speed", FLEET_SPEED) as own:
        yield own.document
        checked = own.invoke("check-consistency", "--json")
        assert checked.returncode == 0, checked.stdout


@dataclass(frozen=True)
class Prepared:
    """A migration that its customer may approve, and the estate before it."""

    customer: Customer
    deployment: str
    recommendation_id: str
    before: ObservedEstate

    @property
    def name(self) -> str:
        """How it is named in failures."""
        return f"{self.deployment} of {self.customer.id}"


def test_concurrent_migrations_are_executed_once_and_in_half_the_time(
    new_customer: NewCustomer, figures: Figures
) -> None:
    """Half of the time that they take one after the other, by the durations of two migrations that run alone."""
    estate = estates.load(ESTATES / "startup.yaml").model_copy(update={"idle_instances": []})
    with ThreadPoolExecutor(2 * TENANTS) as pool:
        alone, *tenants = pool.map(lambda _: new_customer(estate), range(TENANTS + 1))
        single = {}
        for migration in _prepare(alone):
            began = time.monotonic()
            (ended,) = _run([migration], pool, stretched(MIGRATION_SECONDS))
            single[migration.deployment] = time.monotonic() - began
            assert find_violations(_finished(migration, ended)) == Violations()
        prepared = [migration for migrations in pool.map(_prepare, tenants) for migration in migrations]
        one_by_one = TENANTS * sum(single.values())
        began = time.monotonic()
        optimizations = _run(prepared, pool, 0.6 * one_by_one)
        wall = time.monotonic() - began
        for deployment, seconds in single.items():
            figures.record(f"migration of {deployment} alone", seconds, "s")
        figures.record("twenty migrations one by one (computed)", one_by_one, "s")
        figures.record("twenty concurrent migrations", wall, "s")
        figures.record("concurrent to one by one", wall / one_by_one, at_most=0.5)
        figures.plot(one_by_one=one_by_one, **_plotted(optimizations))
        unfinished = [one.id for one in optimizations if one.status not in FINAL]
        assert unfinished == [], f"after {wall:.0f} s; one by one all would take {one_by_one:.0f} s"
        violations = pool.map(find_violations, map(_finished, prepared, optimizations))
        found = {migration.name: each for migration, each in zip(prepared, violations, strict=True) if each}
    assert found == {}
    for tenant in tenants:
        assert _launched(tenant) == {
            (instance_type, lifecycle, state): count
            for instance_type, count in DEPLOYMENTS.values()
            for lifecycle, state in (("on-demand", "terminated"), ("spot", "running"))
        }
    assert figures.missed() == []


def _prepare(customer: Customer) -> list[Prepared]:
    """Analyze the customer's estate; the migrations of both deployments, validated by all agents."""
    found = customer.analyze("cost")
    assert set(found) == set(DEPLOYMENTS)
    for recommendation in found.values():
        assert recommendation.type == "spot_migration"
        assert all(validation.approved for validation in recommendation.validations), recommendation.validations
    return [Prepared(customer, name, one.id, _observe(customer, name)) for name, one in sorted(found.items())]


def _observe(customer: Customer, deployment: str) -> ObservedEstate:
    """The deployment's present state, read from the cloud and the gateway directly."""
    return ObservedEstate(cloud_state.running(customer.seeded, deployment), customer.fleet(deployment))


def _run(migrations: Sequence[Prepared], pool: ThreadPoolExecutor, seconds: float) -> list[Optimization]:
    """Approve all migrations at once; the optimizations after the last one has ended, or after so many seconds."""
    late = time.monotonic() + seconds
    approvals = list(pool.map(lambda one: one.customer.send(calls.approve(one.recommendation_id)), migrations))
    ids = {approval.optimization_id for approval in approvals}
    assert len(ids) == len(migrations)
    customers = {one.customer.id: one.customer for one in migrations}.values()

    def listed() -> dict[str, Optimization]:
        every = (one for customer in customers for one in customer.send(calls.optimizations(customer.id)))
        return {one.id: one for one in every if one.id in ids}

    ended = wait_until(
        listed,
        f"{len(ids)} migrations to end",
        seconds + 60,
        accept=lambda found: time.monotonic() > late or all(one.status in FINAL for one in found.values()),
        poll=0.5,
    )
    return [ended[approval.optimization_id] for approval in approvals]


def _finished(migration: Prepared, optimization: Optimization) -> FinishedMigration:
    customer, (instance_type, count) = migration.customer, DEPLOYMENTS[migration.deployment]
    optimizations = customer.send(calls.optimizations(customer.id))
    return FinishedMigration(
        expected="completed",
        optimization=optimization,
        optimizations=[one.id for one in optimizations if one.recommendation_id == migration.recommendation_id],
        events=customer.get(f"/customers/{customer.id}/events", limit=1000),
        spot_requests=cloud_state.spot_requests(customer.seeded, instance_type),
        instance_count=count,
        before=migration.before,
        after=_observe(customer, migration.deployment),
        source=(instance_type, "on-demand"),
        target=(instance_type, "spot"),
    )


def _launched(customer: Customer) -> Counter[tuple[str, str, str]]:
    """How many instances were ever launched in the customer's accounts, by type, lifecycle and present state."""
    return Counter(kind for cloud in customer.seeded.clouds for kind in cloud_state.launched_in(cloud))


def _plotted(optimizations: Sequence[Optimization]) -> dict[str, list[float]]:
    """Start and end of each migration, in seconds since the first start."""
    began = min(one.started_at for one in optimizations if one.started_at is not None)
    return {
        "started": [(one.started_at - began).total_seconds() for one in optimizations if one.started_at],
        "completed": [(one.completed_at - began).total_seconds() for one in optimizations if one.completed_at],
    }
