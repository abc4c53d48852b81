"""Runtimes belong to the token that they connected with; idempotency keys of telemetry."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The token of a runtime that is connected now is unknown: it is answered 404, and connects again."""
    op.add_column("runtimes", sa.Column("token_id", sa.String(), nullable=True))
    op.create_index("ix_runtimes_token_id", "runtimes", ["token_id"])
    op.create_foreign_key(
        "fk_runtimes_token_id_agent_tokens", "runtimes", "agent_tokens", ["token_id"], ["id"], ondelete="SET NULL"
    )
    op.create_table(
        "telemetry_keys",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name="fk_telemetry_keys_customer_id_customers", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("customer_id", "key", name="pk_telemetry_keys"),
    )
    op.create_index("ix_telemetry_keys_created_at", "telemetry_keys", ["created_at"])


def downgrade() -> None:
    """Revert."""
    op.drop_table("telemetry_keys")
    op.drop_constraint("fk_runtimes_token_id_agent_tokens", "runtimes", type_="foreignkey")
    op.drop_index("ix_runtimes_token_id", "runtimes")
    op.drop_column("runtimes", "token_id")
