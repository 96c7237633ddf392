"""The tables, as SQLAlchemy Core. `migrations/` builds them; `guardrail db check` proves that both agree.

Names of constraints follow one convention from the first migration on, because a constraint without a name cannot be
altered on SQLite. Times are UTC. Text columns hold escaped text (see `guardrail.audit.escaping`), sealed
ones are encrypted where a key is configured (see `guardrail.audit.sealing`). Numbers in JSON are
finite (see `guardrail.audit.rows`). Enumerations are plain strings without CHECK constraints: a new state must not need
a rebuild of a ten-million-row table.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from guardrail.audit.sealing import SealedBytes, SealedString, SealedText

__all__ = [
    "NAMING_CONVENTION",
    "UtcDateTime",
    "appeals",
    "chain_heads",
    "decisions",
    "embeddings",
    "event_heads",
    "events",
    "holds",
    "json_type",
    "labels",
    "metadata",
    "policy_revisions",
    "reasons",
    "reviews",
    "rewrites",
    "scores",
]

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMING_CONVENTION)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC `datetime` with microseconds: `timestamptz` on PostgreSQL, ISO text on SQLite.

    Raises:
        ValueError: a naive datetime is bound; it would silently be taken for another zone.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time; SQLite gets it without the zone, which is UTC for all."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored; pass an aware datetime")
        return value.astimezone(UTC).replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time back in UTC, whatever zone the session shows."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def json_type() -> TypeEngine[Any]:
    """JSONB on PostgreSQL, JSON text elsewhere; Python None is SQL NULL."""
    return JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


policy_revisions = Table(
    "policy_revisions",
    metadata,
    Column("revision", String, primary_key=True),  # "sha256:..." of the resolved policy
    Column("name", String, nullable=False),
    Column("document", Text, nullable=False),  # canonical JSON of the resolved policy: the very text that was hashed
    Column("created_at", UtcDateTime, nullable=False),  # first seen
)

# One row per community: the end of its hash chain. Its row lock is what makes writers of one community take turns.
chain_heads = Table(
    "chain_heads",
    metadata,
    Column("community", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of the last decision; 0 before the first
    Column("hash", String, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String, primary_key=True),
    Column("community", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),  # position in the community's chain: 1, 2, 3, ...
    Column("created_at", UtcDateTime, nullable=False),
    Column("request_id", String, nullable=False),  # one logical client call, over all of its retries
    Column("conversation", String),
    Column("stage", String, nullable=False),
    Column("state", String, nullable=False),
    Column("action", String, nullable=False),
    Column("risk", Double, nullable=False),
    Column("policy", String, nullable=False),
    Column("revision", String, ForeignKey("policy_revisions.revision"), nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("withheld", Boolean, nullable=False),  # the reader saw a refusal
    Column("altered", Boolean, nullable=False),  # the reader saw something other than the source
    Column("text_stored", Boolean, nullable=False),  # False: only digests and spans were kept
    Column("source_text", SealedText),
    Column("delivered_text", SealedText),  # only where altered; otherwise it is the source text
    Column("source_length", Integer, nullable=False),  # code points of the original
    Column("delivered_length", Integer, nullable=False),
    Column("salt", SealedString, nullable=False),  # 16 random bytes in hex; erased together with the text
    Column("source_digest", String, nullable=False),  # "sha256:..." of salt + text
    Column("delivered_digest", String, nullable=False),
    Column("rules", json_type(), nullable=False),  # rule -> risk, all rules of the stage
    Column("failures", json_type(), nullable=False),  # classifier -> error
    Column("models", json_type(), nullable=False),  # name -> sha256
    Column("timings_ms", json_type(), nullable=False),
    Column("note", Text, nullable=False),
    Column("previous_hash", String, nullable=False),
    Column("hash", String, nullable=False),
    Column("content_version", Integer, nullable=False, server_default="1"),  # which field list the hash covers
    Column("subject", String),  # whose text it is, as the caller names people; erased together with the text
    Column("subject_digest", String),  # "sha256:..." of salt + subject
    Column("masked", json_type()),  # {"source": [["email", start, end], ...], ...}: what was masked before the write
    Column("embedding_digest", String),  # "sha256:..." of salt + the row of `embeddings`
    Column("erased_at", UtcDateTime),  # when texts, subject, salt and embedding were erased; an event says why
    UniqueConstraint("community", "sequence"),
    Index(None, "subject"),
    # In the order of a page; what stands last is tested in the index, without the row.
    Index(None, "community", "created_at", "id", "risk", "state", "action"),
    Index(None, "created_at", "id", "risk", "state", "action"),
    Index(None, "state", "created_at", "id", "community"),
    Index(None, "action", "created_at", "id", "community"),
    Index(None, "risk", "community"),
    Index(None, "conversation"),
    Index(None, "request_id"),
    Index(None, "revision"),
)

scores = Table(
    "scores",
    metadata,
    Column("decision_id", String, ForeignKey("decisions.id"), primary_key=True),
    Column("classifier", String, primary_key=True),
    Column("value", Double),  # NULL where the classifier answered NaN
    sqlite_with_rowid=False,
)

reasons = Table(
    "reasons",
    metadata,
    Column("decision_id", String, ForeignKey("decisions.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("rule", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("action", String, nullable=False),
    Column("risk", Double),
    Column("threshold", Double),
    Column("contributions", json_type(), nullable=False),  # classifier -> share of the pooled logit
    Column("spans", json_type(), nullable=False),  # [[start, end], ...] in the original source
    Column("description", Text, nullable=False),
    Column("error", Text, nullable=False),  # what failed, where the rule could not be judged
    # Of the decision, once more: what lets an index find a rule's decisions in the order of a page and leave out others.
    Column("community", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("decision_state", String, nullable=False),
    Column("decision_action", String, nullable=False),
    Column("decision_risk", Double, nullable=False),
    Index(
        "ix_reasons_page",
        *("rule", "created_at", "decision_id", "community", "decision_state", "decision_action", "decision_risk"),
    ),
    Index("ix_reasons_state", "rule", "decision_state", "created_at", "decision_id", "community"),
    Index("ix_reasons_action", "rule", "decision_action", "created_at", "decision_id", "community"),
    Index("ix_reasons_risk", "rule", "decision_risk", "community"),
    sqlite_with_rowid=False,
)

# Position 0 is the repaired draft as a whole; from 1 on stand the candidates for it or for its flagged parts.
rewrites = Table(
    "rewrites",
    metadata,
    Column("decision_id", String, ForeignKey("decisions.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("method", String, nullable=False),
    Column("chosen", Boolean, nullable=False),  # it stands in what was delivered
    Column("passes", Boolean, nullable=False),
    Column("risk_before", Double),
    Column("risk_after", Double),
    Column("similarity", Double),
    Column("fluency", Double),  # log-probability, nats
    Column("utility", Double),  # what selection ranked by
    Column("seed", String),  # decimal; a seed of 64 bits does not fit BIGINT
    Column("scores_after", json_type(), nullable=False),  # classifier -> probability; before: the decision's scores
    Column("edits", json_type()),  # [[start, end in the source, length of the replacement], ...]; of position 0
    Column("text", SealedText),
    Column("text_length", Integer, nullable=False),
    Column("text_digest", String, nullable=False),
    sqlite_with_rowid=False,
)

# The vectors that were judged, where `audit.store_embeddings` is on: what replay decides again without the texts.
embeddings = Table(
    "embeddings",
    metadata,
    Column("decision_id", String, ForeignKey("decisions.id"), primary_key=True),
    Column("encoder", String, nullable=False),  # sha256 of the encoder
    Column("dim", Integer, nullable=False),  # d
    Column("vectors", SealedBytes, nullable=False),  # (N, d) float16, little endian, row by row
    Column("layout", LargeBinary, nullable=False),  # (N, 2) uint32: start, end in the source; equal spans: variants
    Column("others", json_type()),  # classifier that is not linear -> N logits; one that is silent throughout is absent
)

# Drafts that wait for a person (action `escalate`). The decision's id is the ticket.
holds = Table(
    "holds",
    metadata,
    Column("decision_id", String, ForeignKey("decisions.id"), primary_key=True),
    Column("community", String, nullable=False),
    Column("status", String, nullable=False),  # held | released | refused | expired
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),  # when the waiting client gives up, if one waits
    Column("settled_at", UtcDateTime),
    Column("settled_by", String),
    Column("text", SealedText),  # what was released, where it is not the source
    Index(None, "community", "status", "created_at"),
)

# What people and the system did after the decisions: one hash chain per community. A row of reviews, appeals, labels or
# holds is bound to its event by the digests in `details`.
events = Table(
    "events",
    metadata,
    Column("id", String, primary_key=True),
    Column("community", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("kind", String, nullable=False),  # review | label | appeal | answer | settle | erasure | retention | ...
    Column("author", String, nullable=False),
    Column("decision_id", String, index=True),
    Column("subject", String),  # id of the row that it speaks of
    Column("details", json_type(), nullable=False),  # facts; texts as {"sha256", "length"}
    Column("salt", SealedString, nullable=False),  # of the digests in details; '' once erased
    Column("previous_hash", String, nullable=False),
    Column("hash", String, nullable=False),
    UniqueConstraint("community", "sequence"),
    Index(None, "subject"),
    Index(None, "kind", "created_at"),
)

event_heads = Table(
    "event_heads",
    metadata,
    Column("community", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String, nullable=False),
)

# What people say of a decision. Rows are added, never changed: a second look is a second row.
reviews = Table(
    "reviews",
    metadata,
    Column("id", String, primary_key=True),
    Column("decision_id", String, ForeignKey("decisions.id"), nullable=False, index=True),
    Column("reviewer", String, nullable=False),
    Column("verdict", String, nullable=False),  # uphold | overturn | edit | prefer | escalate | comment
    Column("comment", SealedText, nullable=False),
    Column("edited_text", SealedText),  # for `edit`
    Column("preferred", Integer),  # position in rewrites, for `prefer`
    Column("over", Integer),  # the position that it was preferred to
    Column("created_at", UtcDateTime, nullable=False),
    # Of the decision, once more: its community, and when it was made.
    Column("community", String, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Index(None, "reviewer", "decided_at", "decision_id", "community"),
)

appeals = Table(
    "appeals",
    metadata,
    Column("id", String, primary_key=True),  # the ticket that the user holds
    Column("decision_id", String, ForeignKey("decisions.id"), nullable=False, index=True),
    Column("appellant", String, nullable=False),
    Column("statement", SealedText, nullable=False),
    Column("status", String, nullable=False),  # open | granted | refused | withdrawn
    Column("answer", SealedText),
    Column("answered_by", String),
    Column("created_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
    Index(None, "status", "created_at"),
)

labels = Table(
    "labels",
    metadata,
    Column("id", String, primary_key=True),
    Column("decision_id", String, ForeignKey("decisions.id"), nullable=False, index=True),
    Column("review_id", String, ForeignKey("reviews.id"), index=True),
    Column("name", String, nullable=False),  # of a classifier or a rule
    Column("value", Double, nullable=False),  # 0.0 no, 1.0 yes
    Column("source", String, nullable=False),  # review | appeal | import
    Column("author", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "name", "created_at"),
)
