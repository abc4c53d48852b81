"""`python -m optiinfra.orchestrator.migrate`: bring PostgreSQL's schema up to date, then end.

The orchestrator does the same at its start. On its own this needs the database's address only, and can run before a
new version is rolled out.
"""

import asyncio

from optiinfra.kit import logging
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.kit.settings import Concealed, ServiceSettings, load
from optiinfra.stores.postgres.database import Database


class MigrationSettings(ServiceSettings):
    """Where the database is."""

    postgresql_url: Concealed


async def migrate(settings: MigrationSettings) -> None:
    """Migrate to the newest revision. Raises DeadlineError while PostgreSQL does not answer."""
    database = Database(settings.postgresql_url, notify=_nobody)
    try:
        await retry_until_deadline(database.migrate, "PostgreSQL", settings.start_deadline_seconds)
    finally:
        await database.close()


async def _nobody(_channel: str) -> None:
    """Nothing that a migration writes is waited for."""


if __name__ == "__main__":
    migration = load(MigrationSettings)
    logging.configure("migrations", migration.version)
    asyncio.run(migrate(migration))
