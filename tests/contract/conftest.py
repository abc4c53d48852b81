"""PostgreSQL with the platform's schema and one customer."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import delete

from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.engine import Engine, running

CUSTOMER = "cust_1"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Engine]:
    with running("postgresql") as engine:
        yield engine


async def no_notification(_channel: str) -> None:
    """Notify no reader."""


@pytest.fixture
async def database(postgresql: Engine) -> AsyncIterator[Database]:
    """The platform's tables, without readers to notify."""
    opened = Database(postgresql.environment.urls()["postgresql"], no_notification)
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def customer(database: Database) -> AsyncIterator[None]:
    """The one customer that there is."""
    async with database.transaction() as session:
        session.add(models.Customer(id=CUSTOMER, company_name="x", plan="pro", preferences={}))
    yield
    async with database.transaction() as session:
        await session.execute(delete(models.Customer))
