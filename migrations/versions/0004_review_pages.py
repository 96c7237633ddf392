"""The review pages: people, roles, sessions, tokens, the queue, counts, who saw what.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    people()
    sessions()
    tokens()
    access()
    work()
    counts()


def people() -> None:
    op.create_table(
        "review_users",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("preferences", DOCUMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("password_changed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_users")),
        sa.UniqueConstraint("name", name=op.f("uq_review_users_name")),
    )
    op.create_table(
        "review_roles",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "community", name=op.f("pk_review_roles")),
        sa.ForeignKeyConstraint(["user_id"], ["review_users.id"], name=op.f("fk_review_roles_user_id_review_users")),
        sqlite_with_rowid=False,
    )


def sessions() -> None:
    op.create_table(
        "review_sessions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_sessions")),
        sa.ForeignKeyConstraint(["user_id"], ["review_users.id"], name=op.f("fk_review_sessions_user_id_review_users")),
    )
    op.create_index(op.f("ix_review_sessions_user_id"), "review_sessions", ["user_id"])
    op.create_index(op.f("ix_review_sessions_expires_at"), "review_sessions", ["expires_at"])


def tokens() -> None:
    op.create_table(
        "review_tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("scopes", DOCUMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.Column("used_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_review_tokens_hash")),
        sa.ForeignKeyConstraint(
            ["created_by"], ["review_users.id"], name=op.f("fk_review_tokens_created_by_review_users")
        ),
    )
    op.create_index(op.f("ix_review_tokens_created_by"), "review_tokens", ["created_by"])


def access() -> None:
    op.create_table(
        "review_limits",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_review_limits")),
    )
    op.create_index(op.f("ix_review_limits_started_at"), "review_limits", ["started_at"])
    op.create_table(
        "review_access",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("decision_id", sa.String()),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_access")),
    )
    op.create_index(
        op.f("ix_review_access_community_created_at_id"), "review_access", ["community", "created_at", "id"]
    )
    op.create_index(op.f("ix_review_access_decision_id_created_at"), "review_access", ["decision_id", "created_at"])
    op.create_index(op.f("ix_review_access_actor_created_at"), "review_access", ["actor", "created_at"])


def work() -> None:
    op.create_table(
        "review_queue",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("uncertainty", sa.Double(), nullable=False),
        sa.Column("severity", sa.Double(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("risk", sa.Double(), nullable=False),
        sa.Column("needs", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("assigned_to", sa.String()),
        sa.Column("assigned_at", MOMENT),
        sa.Column("outcome", sa.String()),
        sa.Column("done_at", MOMENT),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_review_queue")),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decisions.id"], name=op.f("fk_review_queue_decision_id_decisions"), ondelete="CASCADE"
        ),
    )
    op.create_index(
        op.f("ix_review_queue_community_status_priority_decision_id"),
        "review_queue",
        ["community", "status", "priority", "decision_id"],
    )
    op.create_index(
        op.f("ix_review_queue_community_status_rule_priority_decision_id"),
        "review_queue",
        ["community", "status", "rule", "priority", "decision_id"],
    )
    op.create_index(
        op.f("ix_review_queue_community_status_done_at_decision_id"),
        "review_queue",
        ["community", "status", "done_at", "decision_id"],
    )
    op.create_index(op.f("ix_review_queue_assigned_to_status"), "review_queue", ["assigned_to", "status"])
    op.create_table(
        "review_watermarks",
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("community", name=op.f("pk_review_watermarks")),
    )


def counts() -> None:
    op.create_table(
        "review_daily",
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("decisions", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("community", "day", "state", name=op.f("pk_review_daily")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "review_rule_days",
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("acted", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("community", "day", "rule", name=op.f("pk_review_rule_days")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "review_exposure",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("severe", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "day", name=op.f("pk_review_exposure")),
        sa.ForeignKeyConstraint(["user_id"], ["review_users.id"], name=op.f("fk_review_exposure_user_id_review_users")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in (
        "review_exposure", "review_rule_days", "review_daily", "review_watermarks", "review_queue", "review_access",
        "review_limits", "review_tokens", "review_sessions", "review_roles", "review_users",
    ):  # fmt: skip
        op.drop_table(table)
