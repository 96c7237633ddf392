"""One transaction for a group of calls: policy revisions, chain heads, decisions with all that belongs to them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from guardrail.audit import chain
from guardrail.audit.database import WRITE, DatabaseAway, begin_write, describe, explain, unavailable
from guardrail.audit.escaping import escape, identifier, unescape
from guardrail.audit.rows import DecisionRows
from guardrail.audit.statements import Statement, make_insert
from guardrail.audit.tables import (
    chain_heads,
    decisions,
    embeddings,
    holds,
    policy_revisions,
    reasons,
    rewrites,
    scores,
)
from guardrail.errors import AuditUnavailable
from guardrail.types import Decision

if TYPE_CHECKING:
    from guardrail.policy.loader import Policy

__all__ = ["Batch", "Writer", "policy_row"]

Row = dict[str, Any]

SHORTEST_WAIT = 0.1
"""Seconds that the database gets for a lock in any case, however long a call has queued for its turn."""


class Batch:
    """What one `record()` call wants written: all of it or none.

    Args:
        rows: of its decisions, or what makes them when they are first asked for.
        policy: the row of their policy's revision.
        deadline: until when they are to be written, of `time.monotonic()`.
        count: of its decisions; default: that of `rows`, which are made for it.
    """

    __slots__ = ("_rows", "count", "deadline", "policy")

    def __init__(
        self,
        rows: list[DecisionRows] | Callable[[], list[DecisionRows]],
        policy: Row,
        deadline: float,
        count: int | None = None,
    ) -> None:
        self._rows, self.policy, self.deadline = rows, policy, deadline
        self.count = len(self.rows) if count is None else count

    @property
    def rows(self) -> list[DecisionRows]:
        """The rows; made once."""
        if callable(self._rows):
            self._rows = self._rows()
        return self._rows


def policy_row(policy: Policy, decided: Sequence[Decision]) -> Row:
    """Return the row of a policy's revision.

    Raises:
        AuditUnavailable: a decision names another revision; it could not be explained by this policy.
    """
    for decision in decided:
        if decision.revision != policy.revision:
            raise AuditUnavailable(
                f"decision {decision.id!r} was made under policy revision {decision.revision!r}, but was to be recorded"
                f" under {policy.revision!r}; nothing was recorded. Record each decision with the policy that made it."
            )
    return {**_constant(policy.revision, policy.name, policy.canonical), "created_at": datetime.now(UTC)}


@lru_cache(maxsize=64)
def _constant(revision: str, name: str, canonical: str) -> Row:
    """What is the same in all rows of a policy's revision."""
    return {"revision": identifier(revision), "name": identifier(name), "document": escape(canonical)}


class Writer:
    """Writes groups of batches. `commit` must not run twice at the same time (see `GroupCommit`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(**WRITE)
        self._revisions: set[str] = set()  # known to be stored
        insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._add_revisions = insert(policy_revisions).on_conflict_do_nothing()
        self._add_head = insert(chain_heads).on_conflict_do_nothing()
        self._read_head = Statement(_READ_HEAD, engine.dialect)
        self._move_head = Statement(_MOVE_HEAD, engine.dialect)
        self._decisions = make_insert(decisions, engine.dialect)
        self._scores = make_insert(scores, engine.dialect)
        self._reasons = make_insert(reasons, engine.dialect)
        self._rewrites = make_insert(rewrites, engine.dialect)
        self._embeddings = make_insert(embeddings, engine.dialect)
        self._holds = make_insert(holds, engine.dialect)

    def commit(self, batches: Sequence[Batch]) -> list[AuditUnavailable | None]:
        """Write all batches in one transaction; if one of them cannot be, write the others without it.

        Returns:
            For each batch None, or the `AuditUnavailable` that says why it was not written.
        """
        try:
            self._transaction(batches)
        except IntegrityError:  # one batch contradicts what is stored: find out which
            self._revisions.clear()
            if len(batches) == 1:
                return [self._retry(batches[0])]
            return [self.commit([batch])[0] for batch in batches]
        except SQLAlchemyError as error:  # one each: threads must not share a traceback
            return [unavailable(error, self._engine.url) for _ in batches]
        except DatabaseAway as error:
            return [DatabaseAway(str(error)) for _ in batches]
        return [None] * len(batches)

    def _retry(self, batch: Batch) -> AuditUnavailable | None:
        """Try once more with nothing taken for granted; say what is wrong if it fails again."""
        try:
            self._transaction([batch])
        except IntegrityError as error:
            return self._contradiction(batch, error)
        except SQLAlchemyError as error:
            return unavailable(error, self._engine.url)
        return None

    def _contradiction(self, batch: Batch, refusal: IntegrityError) -> AuditUnavailable:
        ids = [row.decision["id"] for row in batch.rows]
        where = describe(self._engine.url)
        twice = next((key for key, count in Counter(ids).items() if count > 1), None)
        try:
            known = twice or self._already_stored(ids)
        except SQLAlchemyError as error:
            return unavailable(error, self._engine.url)
        if known is not None:
            return AuditUnavailable(
                f"decision {unescape(known)!r} is already on record in {where}, or comes twice in one call; nothing was"
                " recorded. Every decision needs an id of its own."
            )
        return AuditUnavailable(
            f"{where} holds rows that contradict the record ({explain(refusal, self._engine.url)}), so nothing was "
            "recorded. Run: guardrail audit verify"
        )

    def missing(self, batches: Sequence[Batch]) -> list[int]:
        """Return the places of those batches that are not in the database yet, told by the salts of their decisions.

        Raises:
            DatabaseAway: the database cannot be read.
        """
        ids = [batch.rows[0].decision["id"] for batch in batches]
        known: dict[str, str] = {}
        try:
            with self._engine.connect() as connection:
                for start in range(0, len(ids), 500):
                    some = decisions.c.id.in_(ids[start : start + 500])
                    found = connection.execute(select(decisions.c.id, decisions.c.source_digest).where(some))
                    known |= {row.id: row.source_digest for row in found}
        except SQLAlchemyError as error:
            raise unavailable(error, self._engine.url, "read") from error
        firsts = [batch.rows[0].decision for batch in batches]
        # A digest is salted with 16 random bytes: an equal one belongs to this very record, erased or not.
        return [place for place, row in enumerate(firsts) if known.get(row["id"]) != row["source_digest"]]

    def _already_stored(self, ids: Sequence[str]) -> str | None:
        with self._engine.connect() as connection:
            for start in range(0, len(ids), 500):  # SQLite allows 32,766 parameters, older ones 999
                some = decisions.c.id.in_(ids[start : start + 500])
                known: str | None = connection.scalar(select(decisions.c.id).where(some).limit(1))
                if known is not None:
                    return known
        return None

    def _transaction(self, batches: Sequence[Batch]) -> None:
        with self._engine.connect() as connection:
            # The newest call decides how long to wait: it must not fail because an older one has waited already.
            remaining = max(batch.deadline for batch in batches) - time.monotonic()
            begin_write(connection, max(remaining, SHORTEST_WAIT))
            revisions = self._write_revisions(connection, batches)
            rows = [row for batch in batches for row in batch.rows]
            self._link(connection, rows)
            self._decisions(connection, [row.decision for row in rows])
            self._scores(connection, [score for row in rows for score in row.scores])
            self._reasons(connection, [reason for row in rows for reason in row.reasons])
            self._rewrites(connection, [rewrite for row in rows for rewrite in row.rewrites])
            self._embeddings(connection, [embedding for row in rows for embedding in row.embeddings])
            self._holds(connection, [hold for row in rows for hold in row.holds])
            connection.commit()
        self._revisions |= revisions

    def _write_revisions(self, connection: Connection, batches: Sequence[Batch]) -> set[str]:
        missing: dict[str, Row] = {}
        for batch in batches:
            revision = batch.policy["revision"]
            if revision not in self._revisions and revision not in missing:
                missing[revision] = batch.policy
        if missing:  # sorted, so that two writers cannot wait for each other
            connection.execute(self._add_revisions, [missing[key] for key in sorted(missing)])
        return set(missing)

    def _link(self, connection: Connection, rows: Sequence[DecisionRows]) -> None:
        """Give every row its place in its community's chain and move the chain's head. The head's row stays locked
        until the commit, so no other writer can take the same place."""
        communities = sorted({row.decision["community"] for row in rows})
        heads = self._lock_heads(connection, communities)
        for row in rows:
            decision = row.decision
            sequence, previous = heads[decision["community"]]
            sequence += 1
            decision["sequence"] = sequence
            decision["previous_hash"] = previous
            decision["hash"] = chain.link(previous, sequence, row.content)
            heads[decision["community"]] = sequence, decision["hash"]
        for who in communities:
            self._move_head(connection, {"who": who, "sequence_": heads[who][0], "hash_": heads[who][1]})

    def _lock_heads(self, connection: Connection, communities: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Lock the ends of the chains, in the order given, which all writers share: none can wait for another in a ring."""
        heads = {}
        for who in communities:
            head = self._read_head(connection, {"who": who}).fetchone()
            if head is None:
                connection.execute(self._add_head, {"community": who, "sequence": 0, "hash": chain.GENESIS})
                head = self._read_head(connection, {"who": who}).fetchone()  # another writer may have been quicker
            heads[who] = head[0], head[1]
        return heads


_MINE = chain_heads.c.community == bindparam("who")
_READ_HEAD = select(chain_heads.c.sequence, chain_heads.c.hash).where(_MINE).with_for_update()
_MOVE_HEAD = update(chain_heads).where(_MINE).values(sequence=bindparam("sequence_"), hash=bindparam("hash_"))
