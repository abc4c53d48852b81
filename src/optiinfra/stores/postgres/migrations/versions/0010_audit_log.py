"""the audit log, whose entries cannot be changed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit_log",
        sa.Column("chain", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_kind", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", JSONB(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("mac", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "seq", name="pk_audit_log"),
    )
    op.execute(
        """CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
               IF TG_OP = 'DELETE' AND current_setting('optiinfra.audit_deletion', true) = 'on' THEN
                   RETURN OLD;  -- of a customer that is being deleted
               END IF;
               RAISE EXCEPTION 'entries of the audit log cannot be changed';
           END $$"""
    )
    op.execute(
        """CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_log
           FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()"""
    )
    op.execute(
        """CREATE TRIGGER never_truncated BEFORE TRUNCATE ON audit_log
           FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"""
    )


def downgrade() -> None:
    """Revert."""
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION refuse_audit_change()")
