"""The record: policy revisions, decisions with scores, reasons and rewrites, and the hash chain.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "policy_revisions",
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_policy_revisions")),
    )
    op.create_table(
        "chain_heads",
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("community", name=op.f("pk_chain_heads")),
    )
    create_decisions()
    create_scores()
    create_reasons()
    create_rewrites()


def create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("conversation", sa.String()),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("risk", sa.Double(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("withheld", sa.Boolean(), nullable=False),
        sa.Column("altered", sa.Boolean(), nullable=False),
        sa.Column("text_stored", sa.Boolean(), nullable=False),
        sa.Column("source_text", sa.Text()),
        sa.Column("delivered_text", sa.Text()),
        sa.Column("source_length", sa.Integer(), nullable=False),
        sa.Column("delivered_length", sa.Integer(), nullable=False),
        sa.Column("salt", sa.String(), nullable=False),
        sa.Column("source_digest", sa.String(), nullable=False),
        sa.Column("delivered_digest", sa.String(), nullable=False),
        sa.Column("rules", JSON, nullable=False),
        sa.Column("failures", JSON, nullable=False),
        sa.Column("models", JSON, nullable=False),
        sa.Column("timings_ms", JSON, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        sa.UniqueConstraint("community", "sequence", name=op.f("uq_decisions_community_sequence")),
        sa.ForeignKeyConstraint(
            ["revision"], ["policy_revisions.revision"], name=op.f("fk_decisions_revision_policy_revisions")
        ),
    )
    for columns in (
        ("community", "created_at", "id"),
        ("community", "state", "created_at", "id"),
        ("community", "action", "created_at", "id"),
        ("community", "risk"),
        ("created_at", "id"),
        ("conversation",),
        ("request_id",),
        ("revision",),
    ):
        op.create_index(op.f("ix_decisions_" + "_".join(columns)), "decisions", list(columns))


def create_scores() -> None:
    op.create_table(
        "scores",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("classifier", sa.String(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.PrimaryKeyConstraint("decision_id", "classifier", name=op.f("pk_scores")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_scores_decision_id_decisions")),
        sqlite_with_rowid=False,
    )


def create_reasons() -> None:
    op.create_table(
        "reasons",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("risk", sa.Double()),
        sa.Column("threshold", sa.Double()),
        sa.Column("contributions", JSON, nullable=False),
        sa.Column("spans", JSON, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "position", name=op.f("pk_reasons")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_reasons_decision_id_decisions")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_reasons_rule_decision_id"), "reasons", ["rule", "decision_id"])


def create_rewrites() -> None:
    op.create_table(
        "rewrites",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("chosen", sa.Boolean(), nullable=False),
        sa.Column("passes", sa.Boolean(), nullable=False),
        sa.Column("risk_before", sa.Double()),
        sa.Column("risk_after", sa.Double()),
        sa.Column("similarity", sa.Double()),
        sa.Column("fluency", sa.Double()),
        sa.Column("utility", sa.Double()),
        sa.Column("seed", sa.String()),
        sa.Column("scores_after", JSON, nullable=False),
        sa.Column("edits", JSON),
        sa.Column("text", sa.Text()),
        sa.Column("text_length", sa.Integer(), nullable=False),
        sa.Column("text_digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "position", name=op.f("pk_rewrites")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_rewrites_decision_id_decisions")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("rewrites", "reasons", "scores", "decisions", "chain_heads", "policy_revisions"):
        op.drop_table(table)
