"""Events in a chain of their own, held drafts, embeddings, erasure; the database's own full-text index.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from guardrail.audit.search import create_search, drop_search

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
ADDED = ("content_version", "subject", "subject_digest", "masked", "embedding_digest", "erased_at")


def upgrade() -> None:
    op.add_column("decisions", sa.Column("content_version", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("decisions", sa.Column("subject", sa.String()))
    op.add_column("decisions", sa.Column("subject_digest", sa.String()))
    op.add_column("decisions", sa.Column("masked", JSON))
    op.add_column("decisions", sa.Column("embedding_digest", sa.String()))
    op.add_column("decisions", sa.Column("erased_at", MOMENT))
    op.create_index(op.f("ix_decisions_subject"), "decisions", ["subject"])
    create_embeddings()
    create_holds()
    create_events()
    create_search(op.get_bind())


def create_embeddings() -> None:
    op.create_table(
        "embeddings",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("encoder", sa.String(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("vectors", sa.LargeBinary(), nullable=False),
        sa.Column("layout", sa.LargeBinary(), nullable=False),
        sa.Column("others", JSON),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_embeddings")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_embeddings_decision_id_decisions")),
    )


def create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("settled_at", MOMENT),
        sa.Column("settled_by", sa.String()),
        sa.Column("text", sa.Text()),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_holds")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_holds_decision_id_decisions")),
    )
    op.create_index(op.f("ix_holds_community_status_created_at"), "holds", ["community", "status", "created_at"])


def create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("decision_id", sa.String()),
        sa.Column("subject", sa.String()),
        sa.Column("details", JSON, nullable=False),
        sa.Column("salt", sa.String(), nullable=False),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("community", "sequence", name=op.f("uq_events_community_sequence")),
    )
    op.create_index(op.f("ix_events_decision_id"), "events", ["decision_id"])
    op.create_index(op.f("ix_events_subject"), "events", ["subject"])
    op.create_index(op.f("ix_events_kind_created_at"), "events", ["kind", "created_at"])
    op.create_table(
        "event_heads",
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("community", name=op.f("pk_event_heads")),
    )


def downgrade() -> None:
    drop_search(op.get_bind())
    for table in ("event_heads", "events", "holds", "embeddings"):
        op.drop_table(table)
    op.drop_index(op.f("ix_decisions_subject"), "decisions")
    for column in ADDED:
        op.drop_column("decisions", column)
