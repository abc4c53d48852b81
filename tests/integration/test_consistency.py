"""The consistency check, and what the deletion of a customer leaves."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from fixtures import estates
from optiinfra.api.consistency import Consistency
from testbed import consistency
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.dangling_references import SEEDERS, SeedTarget
from tests.helpers.idle_shutdown import start_shutdown
from tests.helpers.outcomes import points_of, seed_outcome
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.stores import Stores

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]

UNCHECKED = {"optimizations", "analyses", "commands", "similar_outcomes", "step_spot_requests", "step_instances"}
"""Kinds without an object: nothing is in progress, no prediction was corrected, no instance was created for a step."""

APART = (
    ("latencies_of_another_customers_deployment", "replica_on_an_unknown_instance"),
    ("workflow_of_an_unknown_analysis", "step_of_an_unknown_workflow"),
    (
        "outcome_without_its_point",
        "pending_command_of_an_ended_optimization",
        "running_optimization_without_a_workflow",
        "requested_rollback_without_a_workflow",
    ),
)
"""Seeders that change the same rows."""

OWNED = """
    WITH RECURSIVE owned (oid) AS (
        SELECT 'public.customers'::regclass::oid
        UNION
        SELECT c.conrelid FROM pg_constraint AS c JOIN owned ON c.confrelid = owned.oid
         WHERE c.contype = 'f' AND c.confdeltype = 'c'
    )
    SELECT 'public.' || relname FROM pg_class JOIN owned USING (oid)"""
"""The tables whose rows PostgreSQL deletes with their customer."""

OF_CUSTOMERS = """
    SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns
     WHERE table_schema = 'public' AND column_name IN ('customer_id', 'user_id', 'optimization_id')"""


@pytest.fixture
def own(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    """Without other tests' customers, and without recovery, which would repair seeded defects."""
    with private_platform_over(
        environment, f"dangling-{os.getpid()}", {"RECOVERY_SECONDS": "3600"}, proxied=()
    ) as platform:
        yield platform


@pytest.fixture
def stores(own: PrivatePlatform) -> Iterator[Stores]:
    connected = Stores(own.document)
    yield connected
    connected.close()


def report(own: PrivatePlatform) -> Consistency:
    return Consistency.model_validate(consistency.fetch(own.described))


def ids_of(stores: Stores, customer: Customer) -> list[str]:
    """The customer's id, the unique part of the email address, and the ids of the customer's rows in every table."""
    columns = stores.sql(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'id'"
        " AND table_name IN (SELECT table_name FROM information_schema.columns WHERE column_name = 'customer_id')"
    )
    rows = [stores.sql(f"SELECT id FROM {table} WHERE customer_id = %s", customer.id) for (table,) in columns]  # noqa: S608
    return [customer.id, customer.seeded.email.partition("+")[2], *(row[0] for found in rows for row in found)]


def rounds() -> list[list[str]]:
    """All seeders, in groups that can be seeded together."""
    turns = {name: turn for names in APART for turn, name in enumerate(names)}
    return [
        [name for name in SEEDERS if turns.get(name, 0) == turn] for turn in range(max(len(names) for names in APART))
    ]


def check_every_kind(own: PrivatePlatform, stores: Stores, customer: Customer) -> None:
    """Each dangling reference is reported, by both of its ends, and nothing else is."""
    clean = report(own)
    assert (clean.dangling, clean.consistent) == ([], True)
    assert {kind for kind, count in clean.checked.items() if count == 0} == UNCHECKED
    for names in rounds():
        with ExitStack() as stack:
            seeded = [stack.enter_context(SEEDERS[name](SeedTarget(stores, customer))) for name in names]
            seen = report(own)
        assert sorted(seen.dangling, key=repr) == sorted(seeded, key=repr)
        assert not seen.consistent
    assert report(own).dangling == []


def check_traces_before(stores: Stores, ids: list[str]) -> None:
    """The customer has data in every store, and in every table that PostgreSQL does not empty by itself."""
    before = stores.count_mentions(ids)
    cascading = {table for (table,) in stores.sql(OWNED)}
    by_hand = {table for table, _ in stores.sql(OF_CUSTOMERS)} - cascading
    assert by_hand == {"public.customer_deletions"}, "rows of these tables outlive their customer"
    expected = {"public.events", "public.outcomes", "public.commands", "public.sessions", "public.instances"}
    expected |= {"dbos.workflow_status", "dbos.operation_outputs"}
    assert expected <= {where.removeprefix("postgresql ") for where in before}
    telemetry = stores.clickhouse(f"SELECT name FROM system.tables WHERE database = '{stores.namespace}'")  # noqa: S608
    assert {f"clickhouse {table}" for table in telemetry} | {"qdrant"} <= before.keys()


@pytest.mark.slow
def test_consistency_check_finds_every_dangling_reference_and_deletion_leaves_none(
    own: PrivatePlatform, stores: Stores
) -> None:
    estate = estates.load(ESTATES / "startup.yaml")
    estate = estate.model_copy(update={"deployments": estate.deployments[:1]})
    with provisioned(own.document, estate) as customer, provisioned(own.document, estate) as other:
        optimization = customer.wait_for_optimization(start_shutdown(customer))
        assert optimization.status == "completed", optimization.result
        check_every_kind(own, stores, customer)
        other.analyze("cost")
        point = seed_outcome(stores, other.id, "spot_migration", [1.0] * 15, {"savings": 1.0}, {"savings": 1.0})
        ids, others = ids_of(stores, customer), ids_of(stores, other)
        check_traces_before(stores, ids)
        kept = stores.count_mentions(others)
        assert {"qdrant", "postgresql public.outcomes", "postgresql dbos.workflow_status"} <= kept.keys()

        assert customer.http.delete(f"/customers/{customer.id}").status_code == 204

        assert stores.count_mentions(ids) == {}
        left = stores.count_mentions(others)
        assert {where: left.get(where, 0) for where in kept if left.get(where, 0) < kept[where]} == {}
        assert report(own).dangling == []
        assert point in [one.payload["optimization_id"] for one in points_of(stores, other.id)]
        assert other.infrastructure().vllm_deployments != []
        assert customer.http.get(f"/customers/{customer.id}").status_code in (401, 404)
        signed_in = customer.http.post(
            "/auth/login", json={"username": customer.seeded.email, "password": customer.seeded.password}
        )
        assert signed_in.status_code == 401
