"""The tables of the review pages: people, their roles, sessions and tokens, what waits for them, who saw what.

What people *decide* stands in the audit store's own tables (`reviews`, `labels`, `appeals`, `events`), chained. Here stands
what may be changed or cleaned up without touching the record.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, String, Table

from guardrail.audit.tables import UtcDateTime, json_type, metadata

__all__ = [
    "access_log",
    "daily",
    "exposure",
    "limits",
    "queue",
    "roles",
    "rule_days",
    "sessions",
    "tokens",
    "users",
    "watermarks",
]

users = Table(
    "review_users",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),  # as typed at sign-in, lower case
    Column("password_hash", String, nullable=False),  # argon2id, with its parameters and salt
    Column("active", Boolean, nullable=False),
    Column("preferences", json_type(), nullable=False),  # theme, blur, greyscale, daily limit
    Column("created_at", UtcDateTime, nullable=False),
    Column("password_changed_at", UtcDateTime, nullable=False),
)

roles = Table(
    "review_roles",
    metadata,
    Column("user_id", String, ForeignKey("review_users.id"), primary_key=True),
    Column("community", String, primary_key=True),  # "*": every community
    Column("role", String, nullable=False),  # viewer | moderator | lead | admin
    sqlite_with_rowid=False,
)

# The key is the sha256 of what the cookie holds: who reads this table cannot become anybody.
sessions = Table(
    "review_sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("user_id", String, ForeignKey("review_users.id"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("agent", String, nullable=False),  # the browser, shortened: "which of my sessions is this?"
)

tokens = Table(
    "review_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", String, nullable=False, unique=True),  # sha256 of the token; it has 256 random bits
    Column("name", String, nullable=False),
    Column("community", String, nullable=False),  # "*": every community
    Column("scopes", json_type(), nullable=False),
    Column("created_by", String, ForeignKey("review_users.id"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("used_at", UtcDateTime),
)

# Fixed windows: how often `key` did it since `started_at`.
limits = Table(
    "review_limits",
    metadata,
    Column("key", String, primary_key=True),
    Column("started_at", UtcDateTime, nullable=False, index=True),
    Column("count", Integer, nullable=False),
)

access_log = Table(
    "review_access",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("actor", String, nullable=False),  # user name, or "token:NAME"
    Column("community", String, nullable=False),
    Column("what", String, nullable=False),  # the route: "GET /decision"
    Column("decision_id", String),
    Column("status", Integer, nullable=False),  # of the answer; 403: it was tried
    Index(None, "community", "created_at", "id"),
    Index(None, "decision_id", "created_at"),
    Index(None, "actor", "created_at"),
)

# One row per decision that a person should look at.
queue = Table(
    "review_queue",
    metadata,
    Column(
        "decision_id", String, ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True
    ),  # retention deletes
    Column("community", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),  # of the decision
    Column("status", String, nullable=False),  # open | second | split | done
    Column("priority", Double, nullable=False),  # 0 to 1, and 1 more for what somebody waits for
    Column("uncertainty", Double, nullable=False),
    Column("severity", Double, nullable=False),
    Column("why", String, nullable=False),  # held | appeal | acted | near | sample | asked
    Column("state", String, nullable=False),
    Column("rule", String, nullable=False),  # the first reason's, or that of the nearest threshold; may be empty
    Column("risk", Double, nullable=False),
    Column("needs", Integer, nullable=False),  # people who must agree: 1, or 2 under a two-person rule
    Column("version", Integer, nullable=False),  # grows with every change: two reviewers cannot both be the first
    Column("assigned_to", String),
    Column("assigned_at", UtcDateTime),
    Column("outcome", String),  # the verdict that stands
    Column("done_at", UtcDateTime),
    Index(None, "community", "status", "priority", "decision_id"),
    Index(None, "community", "status", "rule", "priority", "decision_id"),
    Index(None, "community", "status", "done_at", "decision_id"),
    Index(None, "assigned_to", "status"),
)

# How far each community's chain has been read for the queue and for the counts below.
watermarks = Table(
    "review_watermarks",
    metadata,
    Column("community", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

daily = Table(
    "review_daily",
    metadata,
    Column("community", String, primary_key=True),
    Column("day", String, primary_key=True),  # YYYY-MM-DD, UTC
    Column("state", String, primary_key=True),
    Column("decisions", Integer, nullable=False),
    sqlite_with_rowid=False,
)

rule_days = Table(
    "review_rule_days",
    metadata,
    Column("community", String, primary_key=True),
    Column("day", String, primary_key=True),
    Column("rule", String, primary_key=True),
    Column("acted", Integer, nullable=False),  # decisions in which the rule gave the first reason
    sqlite_with_rowid=False,
)

exposure = Table(
    "review_exposure",
    metadata,
    Column("user_id", String, ForeignKey("review_users.id"), primary_key=True),
    Column("day", String, primary_key=True),
    Column("seen", Integer, nullable=False),  # texts opened
    Column("severe", Integer, nullable=False),  # of these, severe ones
    sqlite_with_rowid=False,
)
