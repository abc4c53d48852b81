"""sessions in a table of their own, instead of families of refresh tokens, and invitations.

A session that exists keeps its end: that of its newest refresh token.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _create_invitations()
    _create_sessions()
    op.execute(
        "INSERT INTO sessions (id, user_id, expires_at, ended_at)"
        " SELECT family, min(user_id), max(expires_at), CASE WHEN bool_and(revoked_at IS NOT NULL)"
        " THEN max(revoked_at) END FROM refresh_tokens GROUP BY family"
    )
    op.alter_column("refresh_tokens", "family", new_column_name="session_id")
    op.execute("ALTER INDEX ix_refresh_tokens_family RENAME TO ix_refresh_tokens_session_id")
    op.create_foreign_key(
        op.f("fk_refresh_tokens_session_id_sessions"),
        "refresh_tokens",
        "sessions",
        ["session_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.drop_column("refresh_tokens", "user_id")
    op.drop_column("refresh_tokens", "revoked_at")


def downgrade() -> None:
    """Revert."""
    op.add_column("refresh_tokens", sa.Column("user_id", sa.String(), nullable=True))
    op.add_column("refresh_tokens", sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE refresh_tokens SET user_id = sessions.user_id, revoked_at = sessions.ended_at"
        " FROM sessions WHERE sessions.id = refresh_tokens.session_id"
    )
    op.alter_column("refresh_tokens", "user_id", nullable=False)
    op.drop_constraint(op.f("fk_refresh_tokens_session_id_sessions"), "refresh_tokens")
    op.alter_column("refresh_tokens", "session_id", new_column_name="family")
    op.execute("ALTER INDEX ix_refresh_tokens_session_id RENAME TO ix_refresh_tokens_family")
    op.create_foreign_key(
        op.f("fk_refresh_tokens_user_id_users"), "refresh_tokens", "users", ["user_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f("ix_refresh_tokens_user_id"), "refresh_tokens", ["user_id"], unique=False)
    op.drop_table("sessions")
    op.drop_table("invitations")


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"], unique=False)


def _create_invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_invitations_customer_id_customers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("customer_id", "email", name=op.f("uq_invitations_customer_id_email")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invitations_token_hash")),
    )
    op.create_index(op.f("ix_invitations_customer_id"), "invitations", ["customer_id"], unique=False)
