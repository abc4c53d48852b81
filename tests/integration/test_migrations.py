"""Migrations of a database with a customer's data: down, up and down again, revision by revision."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from fixtures import estates
from fixtures.provision import create_roles
from optiinfra.stores.postgres.models import Base
from testbed import startup
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, provisioned
from tests.helpers.idle_shutdown import recommend
from tests.helpers.outcomes import seed_outcome
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.schema import Content, Schema, configuration, content, describe, project, shared_columns, tables
from tests.helpers.stores import Stores
from tests.helpers.tenants import external_id_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]

FIRST = "0001"
TAKEN_BACK = {"status": "failed", "error": "taken back"}


def with_recommendations_of_deployments(rows: Content) -> Content:
    """Before 0004 a recommendation was always about a deployment; the others are deleted with what refers to them."""
    kept = {row["id"] for row in rows["recommendations"] if row["deployment_id"] is not None}
    optimizations = {row["id"] for row in rows["optimizations"] if row["recommendation_id"] in kept}
    return rows | {
        "recommendations": [row for row in rows["recommendations"] if row["id"] in kept],
        "optimizations": [row for row in rows["optimizations"] if row["id"] in optimizations],
        "optimization_steps": [row for row in rows["optimization_steps"] if row["optimization_id"] in optimizations],
        "outcomes": [row for row in rows["outcomes"] if row["optimization_id"] in optimizations],
    }


def before_0005(rows: Content) -> Content:
    """A cancelled command was a failed one with a fixed error, and a table had another name."""
    older = {table: each for table, each in rows.items() if table != "customer_deletions"}
    older["leaving"] = rows["customer_deletions"]
    older["commands"] = [row | (TAKEN_BACK if row["status"] == "cancelled" else {}) for row in rows["commands"]]
    return older


def before_0006(rows: Content) -> Content:
    """An unknown cost was a cost of 0."""
    instances = [row | {"monthly_cost": row["monthly_cost"] or 0.0} for row in rows["instances"]]
    return rows | {"instances": instances}


SURVIVING: dict[str, Callable[[Content], Content]] = {"0004": with_recommendations_of_deployments}
"""The rows that survive a downgrade from a revision, if not all do."""
OLDER: dict[str, Callable[[Content], Content]] = {"0005": before_0005, "0006": before_0006}
"""How a revision's rows look in the schema before it, if they differ in more than missing columns and tables."""


YOUNGER = {"api_keys", "telemetry_keys", "idempotency_keys", "audit_log", "invitations"}
"""Tables that older schemas do not have, and whose rows do not follow from others."""


def without_issued(rows: Content) -> Content:
    """Before 0008 each account had an external id: after a downgrade the one that an upgrade issues anew."""
    accounts = [{name: value for name, value in row.items() if name != "external_id"} for row in rows["cloud_accounts"]]
    return rows | {"cloud_accounts": accounts}


def same(rows: Content) -> Content:
    return rows


def assert_same_values(expected: Content, found: Content, when: str) -> None:
    """Tables that both have hold the same values in the columns that both have."""
    for table in expected.keys() & found.keys():
        columns = shared_columns(expected, found, table)
        assert project(found[table], columns) == project(expected[table], columns), f"{table} {when}"


def step(engine: Any, action: Callable[..., None], revision: str) -> tuple[Content, Schema]:
    """Migrate to a revision; the rows and the schema afterwards."""
    with engine.begin() as connection:
        action(configuration(connection), revision)
        return content(connection), describe(connection)


def revisions(engine: Any) -> list[tuple[str, str | None]]:
    """Each revision with the one before it, the newest first."""
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(configuration(connection))
        return [(script.revision, script.down_revision) for script in scripts.walk_revisions()]  # type: ignore[misc]


def walk_down(engine: Any) -> tuple[Content, dict[str, Schema]]:
    """Undo, redo and undo each revision but the first. Returns the rows before that, and each revision's schema."""
    with engine.connect() as connection:
        newest, schema = content(connection), describe(connection)
    rows, schemas = newest, {}
    for revision, before in revisions(engine):
        schemas[revision] = schema
        if before is None:
            continue
        older_rows, older_schema = step(engine, command.downgrade, before)
        surviving = SURVIVING.get(revision, same)(rows)
        expected = OLDER.get(revision, same)(surviving)
        assert_same_values(expected, older_rows, f"after a downgrade from {revision}")
        assert older_rows.keys() <= expected.keys()
        again_rows, again_schema = step(engine, command.upgrade, revision)
        assert again_schema == schema, f"the schema of {revision}"
        assert again_rows.keys() == rows.keys()
        for table in again_rows.keys() & expected.keys() & older_rows.keys():
            columns = shared_columns(older_rows, again_rows, table)
            again = project(again_rows[table], columns)
            assert again == project(surviving[table], columns), f"{table} after an upgrade to {revision}"
        rows, schema = step(engine, command.downgrade, before)
        assert (without_issued(rows), schema) == (without_issued(older_rows), older_schema)
    return newest, schemas


def check_from_nothing(engine: Any, schemas: dict[str, Schema]) -> None:
    """In an empty schema, each migration leads to the schema that the downgrade to it led to, also a second time."""
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA scratch"))
        connection.execute(text("SET LOCAL search_path TO scratch"))
        config = configuration(connection)
        for _ in range(2):
            for revision, schema in reversed(schemas.items()):
                command.upgrade(config, revision)
                assert describe(connection) == schema, f"the schema of {revision}"
            command.downgrade(config, "base")
            assert tables(connection) == []
        connection.execute(text("SET LOCAL search_path TO public"))
        connection.execute(text("DROP SCHEMA scratch CASCADE"))


def check_newest(engine: Any, before: Content, schema: Schema) -> None:
    """All migrations at once lead to the schema that the models describe, with all rows that the first one can hold."""
    rows, found = step(engine, command.upgrade, "head")
    assert found == schema
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_schemas": False})
        assert compare_metadata(context, Base.metadata) == []
    surviving = with_recommendations_of_deployments(before)
    # Known again only after the next discovery, only the present is known, counted from the migration, or issued anew.
    changed = {
        "instances": {"idle_since"},
        "cloud_accounts": {"as_of"},
        "agent_tokens": {"expires_at", "last_used_at"},
        "customers": {"external_id"},
        "runtimes": {"token_id"},
        "sessions": {"created_at", "refreshed_at", "expires_at"},
    }
    for table in surviving.keys() - {"customer_deletions", *YOUNGER}:
        each = surviving[table]
        columns = set(each[0]) - changed.get(table, set()) if each else set()
        if columns:
            assert project(rows[table], columns) == project(each, columns), table
    assert rows["customer_deletions"] == []
    assert {row["idle_since"] for row in rows["instances"]} == {None}


def check_migrations(url: str) -> None:
    """All the way down and up again, one by one, at once, and from nothing."""
    engine = create_engine(url)
    try:
        newest, schemas = walk_down(engine)
        assert newest["customer_deletions"], "no unfinished deletion to migrate"
        assert {row["status"] for row in newest["commands"]} == {"done", "failed", "cancelled", "pending"}
        assert None in {row["monthly_cost"] for row in newest["instances"]}
        assert {row["deployment_id"] is None for row in newest["recommendations"]} == {True, False}
        check_newest(engine, newest, next(iter(schemas.values())))
        check_from_nothing(engine, schemas)
    finally:
        engine.dispose()


def fill(stores: Stores, customer: Customer) -> None:
    """Rows with every value that a migration changes."""
    (deployment,) = customer.seeded.deployments
    kept, lost = (
        seed_outcome(stores, customer.id, "spot_migration", [0.5] * 15, {"savings": 2.0}, {"savings": 1.0})
        for _ in range(2)
    )
    stores.sql(
        "UPDATE recommendations SET deployment_id = %s"
        " WHERE id = (SELECT recommendation_id FROM optimizations WHERE id = %s)",
        deployment.deployment_id,
        kept,
    )
    for optimization in (kept, lost):
        stores.sql(
            "INSERT INTO optimization_steps (optimization_id, name, position, status, attempt, started_at, detail)"
            " VALUES (%s, 'deploy_canary', 1, 'completed', 1, now(), '{}')",
            optimization,
        )
    commands = {"done": None, "failed": "no such replica", "cancelled": None, "pending": None}
    for status, error in commands.items():
        stores.sql(
            "INSERT INTO commands (id, customer_id, idempotency_key, kind, payload, status, error)"
            " VALUES (%s, %s, %s, 'discover', '{}', %s, %s)",
            f"cmd_{status}",
            customer.id,
            f"test:{status}",
            status,
            error,
        )
    stores.sql("UPDATE instances SET monthly_cost = NULL WHERE instance_type = 'g5.12xlarge'")
    stores.sql("INSERT INTO customer_deletions (customer_id) VALUES ('cust_leaving')")


@pytest.fixture
def own(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    with private_platform_over(environment, f"migrations-{os.getpid()}", proxied=()) as platform:
        yield platform


@pytest.mark.slow
def test_migrations_down_and_up_keep_the_data_of_a_customer(own: PrivatePlatform) -> None:
    estate = estates.load(ESTATES / "startup.yaml")
    estate = estate.model_copy(update={"deployments": estate.deployments[:1]})
    with provisioned(own.document, estate) as customer:
        idle = recommend(customer)
        shown = customer.infrastructure()
        startup.stop(own.name, print)
        try:
            with closing(Stores(own.document)) as stores:
                fill(stores, customer)
            check_migrations(own.document["urls"]["postgresql"])
        finally:  # also after a failure, because the customer is removed through the platform
            startup.start(own.name, own.described.settings, print)

        tokens = customer.post("/auth/login", {"username": customer.seeded.email, "password": customer.seeded.password})
        customer.http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        # As the owner does, who finds another id in the settings now.
        create_roles(own.document, customer.seeded, external_id_of(customer))
        again = customer.infrastructure()
        assert again.vllm_deployments[0].deployment_id == shown.vllm_deployments[0].deployment_id
        assert {one.instance_id for one in again.instances} == {one.instance_id for one in shown.instances}
        listed = [one["id"] for one in customer.get(f"/customers/{customer.id}/recommendations", limit=1000)]
        assert listed
        assert idle.id not in listed, "it was about no deployment, which the first schema cannot hold"
        assert "chat" in customer.analyze("cost")
        seqs = [event["seq"] for event in customer.get(f"/customers/{customer.id}/events", limit=1000)]
        assert seqs == list(range(1, len(seqs) + 1)), "the numbering of events continues"
