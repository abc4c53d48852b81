"""a cloud account belongs to the one customer that has connected it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Of several customers that have read an account, the first one keeps it."""
    op.create_table(
        "connected_accounts",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"],
            ["customers.id"],
            name=op.f("fk_connected_accounts_customer_id_customers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("provider", "account_id", name=op.f("pk_connected_accounts")),
    )
    op.create_index(op.f("ix_connected_accounts_customer_id"), "connected_accounts", ["customer_id"], unique=False)
    op.execute(
        "INSERT INTO connected_accounts (provider, account_id, customer_id)"
        " SELECT DISTINCT ON (provider, account_id) provider, account_id, customer_id FROM cloud_accounts"
        " WHERE status = 'discovered' AND account_id IS NOT NULL ORDER BY provider, account_id, created_at, id"
    )


def downgrade() -> None:
    """Revert."""
    op.drop_table("connected_accounts")
