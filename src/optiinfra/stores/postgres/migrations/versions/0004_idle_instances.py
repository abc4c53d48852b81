"""idle instances, recommendations without a deployment, and the account number of a cloud account."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("instances", sa.Column("idle_since", sa.DateTime(timezone=True), nullable=True))
    op.alter_column("recommendations", "deployment_id", nullable=True)
    op.add_column("cloud_accounts", sa.Column("account_id", sa.String(), nullable=True))
    # arn:aws:iam::ACCOUNT:role/NAME
    op.execute("UPDATE cloud_accounts SET account_id = split_part(role_arn, ':', 5) WHERE provider = 'aws'")


def downgrade() -> None:
    """Revert; recommendations that are about no deployment are deleted."""
    op.drop_column("cloud_accounts", "account_id")
    op.execute("DELETE FROM recommendations WHERE deployment_id IS NULL")
    op.alter_column("recommendations", "deployment_id", nullable=False)
    op.drop_column("instances", "idle_since")
