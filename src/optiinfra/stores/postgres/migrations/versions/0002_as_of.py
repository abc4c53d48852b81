"""the time that the stored listing of a cloud account is from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    as_of = sa.Column("as_of", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    op.add_column("cloud_accounts", as_of)


def downgrade() -> None:
    """Revert."""
    op.drop_column("cloud_accounts", "as_of")
