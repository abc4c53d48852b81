"""PostgreSQL as the platform uses it: SQLAlchemy over psycopg 3."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tests.contract.engine import Engine, running


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Engine]:
    """A server of the module's own, which a test kills."""
    with running("postgresql", "killed") as started:
        yield started


@pytest.fixture
def database(postgresql: Engine) -> Iterator[Database]:
    made = create_engine(postgresql.environment.urls()["postgresql"], pool_pre_ping=True)
    yield made
    made.dispose()


def test_role_owns_its_database_and_can_create_others(database: Database) -> None:
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        owner = connection.scalar(
            text("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
        )
        connection.execute(text("CREATE DATABASE another"))
        connection.execute(text("DROP DATABASE another"))
        superuser = connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
    assert owner == "optiinfra"
    assert superuser is False


def test_wrong_password_is_refused(postgresql: Engine) -> None:
    url = f"postgresql+psycopg://optiinfra:wrong@127.0.0.1:{postgresql.port}/optiinfra"
    with pytest.raises(OperationalError, match="password authentication failed"), create_engine(url).connect():
        pass


def test_superuser_cannot_sign_in(postgresql: Engine) -> None:
    url = f"postgresql+psycopg://postgres:@127.0.0.1:{postgresql.port}/optiinfra"
    with pytest.raises(OperationalError), create_engine(url).connect():
        pass


def test_committed_rows_survive_a_kill(postgresql: Engine, database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE kept (number int)"))
    for number in range(50):
        with database.begin() as connection:
            connection.execute(text("INSERT INTO kept VALUES (:number)"), {"number": number})
    postgresql.kill()
    database.dispose()
    postgresql.start()
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM kept")) == 50
