"""Pages by rule, risk and words in their own order: reasons know when and where, the words of texts are kept.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from guardrail.audit.search import create_search, drop_search

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
REASONS = ("decision_id", "position", "rule", "stage", "action", "risk", "threshold", "contributions", "spans",
           "description", "error")  # fmt: skip
BY_RULE = ["rule", "created_at", "decision_id", "community"]
PAGES = (["community", "created_at", "id"], ["created_at", "id"])


def upgrade() -> None:
    op.drop_index(op.f("ix_reasons_rule_decision_id"), "reasons")
    if op.get_bind().dialect.name == "postgresql":
        place_reasons()
    else:
        rebuild_reasons()
    op.create_index(op.f("ix_reasons_" + "_".join(BY_RULE)), "reasons", BY_RULE)
    for columns in PAGES:
        op.drop_index(op.f("ix_decisions_" + "_".join(columns)), "decisions")
    if op.get_bind().dialect.name == "postgresql":
        drop_search(op.get_bind())
        create_search(op.get_bind(), stored=True)
    for columns in PAGES:
        op.create_index(op.f("ix_decisions_" + "_".join([*columns, "risk"])), "decisions", [*columns, "risk"])


def place_reasons() -> None:
    op.add_column("reasons", sa.Column("community", sa.String()))
    op.add_column("reasons", sa.Column("created_at", MOMENT))
    op.execute(
        "UPDATE reasons SET community = decisions.community, created_at = decisions.created_at FROM decisions "
        "WHERE decisions.id = reasons.decision_id"
    )
    op.alter_column("reasons", "community", nullable=False)
    op.alter_column("reasons", "created_at", nullable=False)


def rebuild_reasons() -> None:
    """SQLite adds no column that must have a value. A reason without a decision is kept, for the migration's own check of
    references to name it."""
    op.create_table(
        "reasons_placed",
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
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "position", name=op.f("pk_reasons")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_reasons_decision_id_decisions")),
        sqlite_with_rowid=False,
    )
    old = ", ".join(f"reasons.{name}" for name in REASONS)
    op.execute(
        f"INSERT INTO reasons_placed ({', '.join(REASONS)}, community, created_at) "  # noqa: S608 - names from above
        f"SELECT {old}, coalesce(decisions.community, ''), coalesce(decisions.created_at, '1970-01-01 00:00:00.000000') "
        "FROM reasons LEFT JOIN decisions ON decisions.id = reasons.decision_id"
    )
    op.drop_table("reasons")
    op.rename_table("reasons_placed", "reasons")


def downgrade() -> None:
    for columns in PAGES:
        op.drop_index(op.f("ix_decisions_" + "_".join([*columns, "risk"])), "decisions")
        op.create_index(op.f("ix_decisions_" + "_".join(columns)), "decisions", columns)
    op.drop_index(op.f("ix_reasons_" + "_".join(BY_RULE)), "reasons")
    op.drop_column("reasons", "community")
    op.drop_column("reasons", "created_at")
    op.create_index(op.f("ix_reasons_rule_decision_id"), "reasons", ["rule", "decision_id"])
    if op.get_bind().dialect.name == "postgresql":
        drop_search(op.get_bind())
        create_search(op.get_bind())
