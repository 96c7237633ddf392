"""Pages of a rule by outcome, of a reviewer, and by state, action or risk in all communities, each in its own order.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
OUTCOME = {"decision_state": "state", "decision_action": "action", "decision_risk": "risk"}
REASONS = ("decision_id", "position", "rule", "stage", "action", "risk", "threshold", "contributions", "spans",
           "description", "error", "community", "created_at")  # fmt: skip
REVIEWS = ("id", "decision_id", "reviewer", "verdict", "comment", "edited_text", "preferred", "over", "created_at")
BY_RULE = ["rule", "created_at", "decision_id", "community"]
OF_REASONS = {
    "page": [*BY_RULE, *OUTCOME],
    "state": ["rule", "decision_state", "created_at", "decision_id", "community"],
    "action": ["rule", "decision_action", "created_at", "decision_id", "community"],
    "risk": ["rule", "decision_risk", "community"],
}
BY_REVIEWER = ["reviewer", "decided_at", "decision_id", "community"]
OLD = (
    ["community", "created_at", "id", "risk"],
    ["created_at", "id", "risk"],
    ["community", "state", "created_at", "id"],
    ["community", "action", "created_at", "id"],
    ["community", "risk"],
)
NEW = (
    ["community", "created_at", "id", "risk", "state", "action"],
    ["created_at", "id", "risk", "state", "action"],
    ["state", "created_at", "id", "community"],
    ["action", "created_at", "id", "community"],
    ["risk", "community"],
)


def upgrade() -> None:
    op.drop_index(name("reasons", BY_RULE), "reasons")
    if op.get_bind().dialect.name == "postgresql":
        add_columns()
    else:
        rebuild_reasons()
        rebuild_reviews()
    for kind, columns in OF_REASONS.items():
        op.create_index(op.f(f"ix_reasons_{kind}"), "reasons", columns)
    op.create_index(name("reviews", BY_REVIEWER), "reviews", BY_REVIEWER)
    replace_indexes(OLD, NEW)


def name(table: str, columns: list[str]) -> str:
    return op.f(f"ix_{table}_{'_'.join(columns)}")


def replace_indexes(old: tuple[list[str], ...], new: tuple[list[str], ...]) -> None:
    for columns in old:
        op.drop_index(name("decisions", columns), "decisions")
    for columns in new:
        op.create_index(name("decisions", columns), "decisions", columns)


def add_columns() -> None:
    op.drop_index(name("reviews", ["reviewer", "created_at"]), "reviews")
    reviews = {"community": "community", "decided_at": "created_at"}
    for table, columns in (("reasons", OUTCOME), ("reviews", reviews)):
        for column in columns:
            kind = MOMENT if column == "decided_at" else sa.Double() if column == "decision_risk" else sa.String()
            op.add_column(table, sa.Column(column, kind))
        values = ", ".join(f"{column} = decisions.{source}" for column, source in columns.items())
        op.execute(f"UPDATE {table} SET {values} FROM decisions WHERE decisions.id = {table}.decision_id")  # noqa: S608
        for column in columns:
            op.alter_column(table, column, nullable=False)


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
        sa.Column("decision_state", sa.String(), nullable=False),
        sa.Column("decision_action", sa.String(), nullable=False),
        sa.Column("decision_risk", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "position", name=op.f("pk_reasons")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_reasons_decision_id_decisions")),
        sqlite_with_rowid=False,
    )
    added = [f"coalesce(decisions.{source}, {'0' if source == 'risk' else repr('')})" for source in OUTCOME.values()]
    copy("reasons", REASONS, OUTCOME, added)


def rebuild_reviews() -> None:
    op.drop_index(name("reviews", ["reviewer", "created_at"]), "reviews")
    op.drop_index(op.f("ix_reviews_decision_id"), "reviews")
    op.create_table(
        "reviews_placed",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("edited_text", sa.Text()),
        sa.Column("preferred", sa.Integer()),
        sa.Column("over", sa.Integer()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("community", sa.String(), nullable=False),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_reviews_decision_id_decisions")),
    )
    added = ["coalesce(decisions.community, '')", "coalesce(decisions.created_at, '1970-01-01 00:00:00.000000')"]
    copy("reviews", REVIEWS, ("community", "decided_at"), added)
    op.create_index(op.f("ix_reviews_decision_id"), "reviews", ["decision_id"])


def copy(table: str, kept: tuple[str, ...], new: Iterable[str], values: list[str]) -> None:
    """Fill the rebuilt table, and let it take the old one's place."""
    old = ", ".join(f"{table}.{column}" for column in kept)
    op.execute(
        f"INSERT INTO {table}_placed ({', '.join([*kept, *new])}) SELECT {old}, {', '.join(values)} "  # noqa: S608
        f"FROM {table} LEFT JOIN decisions ON decisions.id = {table}.decision_id"
    )
    op.drop_table(table)
    op.rename_table(f"{table}_placed", table)


def downgrade() -> None:
    replace_indexes(NEW, OLD)
    op.drop_index(name("reviews", BY_REVIEWER), "reviews")
    for column in ("community", "decided_at"):
        op.drop_column("reviews", column)
    op.create_index(name("reviews", ["reviewer", "created_at"]), "reviews", ["reviewer", "created_at"])
    for kind in OF_REASONS:
        op.drop_index(op.f(f"ix_reasons_{kind}"), "reasons")
    for column in OUTCOME:
        op.drop_column("reasons", column)
    op.create_index(name("reasons", BY_RULE), "reasons", BY_RULE)
