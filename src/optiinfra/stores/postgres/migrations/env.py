"""Alembic's entry: runs on the connection that `Database.migrate` holds open."""

from alembic import context

from optiinfra.stores.postgres.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
