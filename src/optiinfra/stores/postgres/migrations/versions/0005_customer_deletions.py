"""table of unfinished customer deletions under its new name, and a status of its own for cancelled commands."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.rename_table("leaving", "customer_deletions")
    op.execute("ALTER TABLE customer_deletions RENAME CONSTRAINT pk_leaving TO pk_customer_deletions")
    op.execute(
        "UPDATE commands SET status = 'cancelled', error = NULL WHERE status = 'failed' AND error = 'taken back'"
    )


def downgrade() -> None:
    """Revert."""
    op.execute("UPDATE commands SET status = 'failed', error = 'taken back' WHERE status = 'cancelled'")
    op.execute("ALTER TABLE customer_deletions RENAME CONSTRAINT pk_customer_deletions TO pk_leaving")
    op.rename_table("customer_deletions", "leaving")
