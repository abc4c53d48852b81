"""Migrations on a database that holds rows of the schema before."""

import re

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from tests.contract.engine import Engine
from tests.helpers.schema import configuration

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("database")
async def test_0004_fills_in_account_id_from_role_arn(postgresql: Engine) -> None:
    engine = create_engine(postgresql.environment.urls()["postgresql"])
    with engine.connect() as connection:  # never committed: other tests find the newest schema
        config = configuration(connection)
        command.downgrade(config, "0003")
        connection.execute(
            text("INSERT INTO customers (id, company_name, plan, preferences) VALUES ('c', 'x', 'x', '{}')")
        )
        connection.execute(
            text(
                "INSERT INTO cloud_accounts (id, customer_id, provider, region, role_arn, status) VALUES"
                " ('a', 'c', 'aws', 'us-east-1', 'arn:aws:iam::111122223333:role/optiinfra', 'discovered')"
            )
        )
        command.upgrade(config, "head")
        assert connection.scalar(text("SELECT account_id FROM cloud_accounts")) == "111122223333"
    engine.dispose()


@pytest.mark.usefixtures("database")
async def test_0008_issues_an_external_id_to_each_customer_and_drops_those_of_callers(postgresql: Engine) -> None:
    engine = create_engine(postgresql.environment.urls()["postgresql"])
    with engine.connect() as connection:
        config = configuration(connection)
        command.downgrade(config, "0007")
        for name in ("c", "d"):
            connection.execute(
                text("INSERT INTO customers (id, company_name, plan, preferences) VALUES (:id, 'x', 'x', '{}')"),
                {"id": name},
            )
        connection.execute(
            text(
                "INSERT INTO cloud_accounts (id, customer_id, provider, region, role_arn, external_id, status) VALUES"
                " ('a', 'c', 'aws', 'us-east-1', 'arn:aws:iam::111122223333:role/o', 'chosen', 'discovered')"
            )
        )
        command.upgrade(config, "0008")
        issued = {row.id: row.external_id for row in connection.execute(text("SELECT id, external_id FROM customers"))}
        assert len(set(issued.values())) == len(issued) == 2
        assert all(re.fullmatch(r"[0-9a-f-]{36}", each) for each in issued.values()), issued
        command.downgrade(config, "0007")
        assert connection.scalar(text("SELECT external_id FROM cloud_accounts")) == issued["c"]
    engine.dispose()


@pytest.mark.usefixtures("database")
async def test_0011_leaves_an_account_to_the_first_customer_that_has_read_it(postgresql: Engine) -> None:
    engine = create_engine(postgresql.environment.urls()["postgresql"])
    with engine.connect() as connection:
        config = configuration(connection)
        command.downgrade(config, "0010")
        for name in ("c", "d", "e"):
            connection.execute(
                text("INSERT INTO customers (id, company_name, plan, preferences) VALUES (:id, 'x', 'x', '{}')"),
                {"id": name},
            )
        # The first one that named the account has never read it.
        for number, (name, status) in enumerate([("c", "failed"), ("d", "discovered"), ("e", "discovered")]):
            connection.execute(
                text(
                    "INSERT INTO cloud_accounts"
                    " (id, customer_id, provider, region, role_arn, account_id, status, created_at) VALUES"
                    " (:id, :id, 'aws', 'us-east-1', 'r', '111122223333', :status, now() + make_interval(secs => :n))"
                ),
                {"id": name, "status": status, "n": number},
            )
        command.upgrade(config, "0011")
        assert [tuple(row) for row in connection.execute(text("SELECT * FROM connected_accounts"))] == [
            ("aws", "111122223333", "d")
        ]
        for name in ("c", "d", "e"):
            connection.execute(
                text(
                    "INSERT INTO instances (customer_id, instance_id, cloud_account_id, provider, region,"
                    " instance_type, lifecycle, state, seen_at)"
                    " VALUES (:id, 'i-1', :id, 'aws', 'us-east-1', 't', 'on-demand', 'running', now())"
                ),
                {"id": name},
            )
        command.upgrade(config, "0014")
        kept = connection.execute(text("SELECT customer_id FROM instances"))
        assert [row.customer_id for row in kept] == ["d"], "others see no listing of an account that is not theirs"
    engine.dispose()
