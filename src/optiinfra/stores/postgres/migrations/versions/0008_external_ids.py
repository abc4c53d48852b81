"""the platform issues each customer's external id; those that callers chose for an account are dropped."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The default is evaluated for each existing customer."""
    issued = sa.Column("external_id", sa.String(), server_default=sa.text("(gen_random_uuid())::text"), nullable=False)
    op.add_column("customers", issued)
    op.create_unique_constraint(op.f("uq_customers_external_id"), "customers", ["external_id"])
    op.drop_column("cloud_accounts", "external_id")


def downgrade() -> None:
    """Revert. The accounts keep the issued id, which their roles may require by now."""
    op.add_column("cloud_accounts", sa.Column("external_id", sa.String(), nullable=True))
    op.execute(
        "UPDATE cloud_accounts SET external_id = customers.external_id FROM customers"
        " WHERE customers.id = cloud_accounts.customer_id"
    )
    op.drop_constraint(op.f("uq_customers_external_id"), "customers", type_="unique")
    op.drop_column("customers", "external_id")
