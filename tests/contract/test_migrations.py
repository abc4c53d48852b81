"""Migrations on a database that holds rows of the schema before."""

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
