"""Engines that several modules share, and a database with the platform's schema and one customer.

`nox -s fast` runs each module in one worker, so that a worker starts few engines.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import delete

from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.engine import BACKEND, Engine, running

CUSTOMER = "cust_1"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say whether engines were tested in containers as well."""
    if BACKEND == "embedded":
        how = "`OPTIINFRA_BACKEND=compose` runs them where a Docker engine answers"
        terminalreporter.write_line(f"contract tests of engines in containers: not run; {how}")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Engine]:
    with running("postgresql") as engine:
        yield engine


@pytest.fixture(scope="module")
def postgresql(postgresql_server: Engine, request: pytest.FixtureRequest) -> Engine:
    """The shared server, with a database of the module's own."""
    shared = postgresql_server.environment
    own = replace(shared, namespace=f"{request.node.path.stem}_{secrets.token_hex(2)}")
    with psycopg.connect(shared.urls()["postgresql"].replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{own.namespace}"'.encode())
    return Engine("postgresql", own)


@pytest.fixture(scope="session")
def localstack() -> Iterator[Engine]:
    with running("localstack") as engine:
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
