"""listings of accounts that 0011 left to another customer are removed."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute(
        "DELETE FROM instances USING cloud_accounts AS lost, connected_accounts AS held"
        " WHERE instances.cloud_account_id = lost.id AND held.provider = lost.provider"
        " AND held.account_id = lost.account_id AND held.customer_id <> lost.customer_id"
    )


def downgrade() -> None:
    """Revert. What was removed was not the customer's."""
