"""Encrypted texts stay out of the full-text index.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

from guardrail.audit.search import refresh_search

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    refresh_search(op.get_bind())


def downgrade() -> None:
    """The index of 0004 holds the same clear texts; it would only take in encrypted ones too."""
