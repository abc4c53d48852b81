"""instances that run without a known price have no cost, instead of a cost of 0."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.alter_column("instances", "monthly_cost", existing_type=sa.Double(), nullable=True)
    op.execute("UPDATE instances SET monthly_cost = NULL WHERE state = 'running' AND monthly_cost = 0")


def downgrade() -> None:
    """Revert."""
    op.execute("UPDATE instances SET monthly_cost = 0 WHERE monthly_cost IS NULL")
    op.alter_column("instances", "monthly_cost", existing_type=sa.Double(), nullable=False)
