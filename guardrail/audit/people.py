"""What people say of decisions: reviews, labels, appeals, answers, verdicts on held drafts. Each is chained by an event."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from guardrail.audit.database import WRITE, begin_write, unavailable
from guardrail.audit.escaping import escape, identifier, unescape
from guardrail.audit.events import append, bound, new_salt
from guardrail.audit.tables import appeals, decisions, holds, labels, reviews
from guardrail.errors import ConfigurationError

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore

__all__ = ["ANSWERS", "VERDICTS", "Change", "People"]

VERDICTS = ("uphold", "overturn", "edit", "prefer", "escalate", "comment")
ANSWERS = ("granted", "refused", "withdrawn")
SOURCES = ("review", "appeal", "import")
SETTLED = ("released", "refused", "expired")


class Change:
    """One open write transaction. Made by `People.change`.

    Attributes:
        connection: for rows of other tables that belong to the same change.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def review(
        self,
        decision_id: str,
        *,
        reviewer: str,
        verdict: str,
        comment: str = "",
        edited_text: str | None = None,
        preferred: int | None = None,
        over: int | None = None,
    ) -> str:
        """Add a review and return its id.

        Args:
            verdict: of `VERDICTS`.
            edited_text: what should have been delivered, for `edit`.
            preferred, over: positions of two rewrites, for `prefer`.

        Raises:
            ConfigurationError: no such decision, another verdict, `edit` without a text, `prefer` without positions.
        """
        _one_of("verdict", verdict, VERDICTS)
        if (verdict == "edit") != (edited_text is not None):
            raise ConfigurationError("edited_text belongs to the verdict 'edit', and to no other")
        if (verdict == "prefer") != (preferred is not None and over is not None and preferred != over):
            raise ConfigurationError("the verdict 'prefer' needs two different positions: preferred and over")
        row: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "decision_id": identifier(decision_id),
            "reviewer": identifier(reviewer),
            "verdict": verdict,
            "comment": escape(comment),
            "edited_text": None if edited_text is None else escape(edited_text),
            "preferred": preferred,
            "over": over,
            "created_at": datetime.now(UTC),
        }
        return self._add(reviews, row, "review", row["reviewer"])

    def label(
        self,
        decision_id: str,
        *,
        name: str,
        value: float,
        author: str,
        source: str = "review",
        review_id: str | None = None,
    ) -> str:
        """Say that a classifier or rule should (1.0) or should not (0.0) have found something; return the label's id.

        Raises:
            ConfigurationError: no such decision, a value outside of [0, 1], an unknown source.
        """
        _one_of("source", source, SOURCES)
        if not 0.0 <= value <= 1.0:
            raise ConfigurationError(f"the value of a label is {value}, expected 0 to 1")
        row: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "decision_id": identifier(decision_id),
            "review_id": review_id,
            "name": identifier(name),
            "value": float(value),
            "source": source,
            "author": identifier(author),
            "created_at": datetime.now(UTC),
        }
        return self._add(labels, row, "label", row["author"])

    def appeal(self, decision_id: str, *, appellant: str, statement: str) -> str:
        """Open an appeal and return its ticket.

        Raises:
            ConfigurationError: no such decision.
        """
        row: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "decision_id": identifier(decision_id),
            "appellant": identifier(appellant),
            "statement": escape(statement),
            "status": "open",
            "answer": None,
            "answered_by": None,
            "created_at": datetime.now(UTC),
            "answered_at": None,
        }
        return self._add(appeals, row, "appeal", "appellant")

    def answer(self, ticket: str, *, status: str, answer: str, answered_by: str) -> None:
        """Answer an open appeal.

        Raises:
            ConfigurationError: no such appeal, answered already, or a status not of `ANSWERS`.
        """
        _one_of("status", status, ANSWERS)
        decision_id = self.connection.scalar(select(appeals.c.decision_id).where(appeals.c.id == ticket))
        if decision_id is None:
            raise ConfigurationError(f"there is no appeal {ticket!r}")
        values: dict[str, Any] = {
            "status": status,
            "answer": escape(answer),
            "answered_by": identifier(answered_by),
            "answered_at": datetime.now(UTC),
        }
        open_ = update(appeals).where(appeals.c.id == ticket, appeals.c.status == "open")
        if self.connection.execute(open_.values(values)).rowcount != 1:
            raise ConfigurationError(f"the appeal {ticket!r} is answered already")
        self._bind(appeals, ticket, values, "answer", values["answered_by"], decision_id)

    def settle(self, decision_id: str, *, status: str, by: str, text: str | None = None) -> None:
        """Release or refuse a held draft; whoever waits for it is told.

        Args:
            status: released | refused | expired.
            text: what to deliver instead of the draft.

        Raises:
            ConfigurationError: the draft is not held, or not any more.
        """
        _one_of("status", status, SETTLED)
        key = identifier(decision_id)
        values: dict[str, Any] = {
            "status": status,
            "settled_at": datetime.now(UTC),
            "settled_by": identifier(by),
            "text": None if text is None else escape(text),
        }
        held = update(holds).where(holds.c.decision_id == key, holds.c.status == "held")
        if self.connection.execute(held.values(values)).rowcount != 1:
            found = self.connection.execute(select(holds).where(holds.c.decision_id == key)).first()
            if found is None:
                raise ConfigurationError(f"decision {decision_id!r} is not held")
            who = f" by {unescape(found.settled_by)}" if found.settled_by else ""
            raise ConfigurationError(f"decision {decision_id!r} is not held any more: it was {found.status}{who}")
        self._bind(holds, key, values, "settle", values["settled_by"], key)

    def event(
        self,
        community: str,
        *,
        kind: str,
        author: str,
        decision_id: str | None = None,
        subject: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> str:
        """Chain anything else worth keeping (a role that was granted, an assignment); return the event's id.

        Args:
            details: JSON values; no personal texts, for they cannot be erased.
        """
        return append(
            self.connection,
            identifier(community),
            kind,
            identifier(author),
            details or {},
            decision_id=None if decision_id is None else identifier(decision_id),
            subject=subject,
        )

    def _add(self, table: Table, row: dict[str, Any], kind: str, author: str) -> str:
        community, decided_at = self._place(row["decision_id"])
        # Not part of the event: the decision's own hash covers them, and `verify` compares.
        repeated = {"community": community, "decided_at": decided_at} if table is reviews else {}
        self.connection.execute(insert(table), row | repeated)
        salt = new_salt()
        append(
            self.connection,
            community,
            kind,
            author,
            {"table": table.name, "row": bound(table, row, salt)},
            decision_id=row["decision_id"],
            subject=row["id"],
            salt=salt,
        )
        return str(row["id"])

    def _bind(self, table: Table, key: str, values: dict[str, Any], kind: str, author: str, decision_id: str) -> None:
        salt = new_salt()
        details = {"table": table.name, "row": bound(table, values, salt)}
        community, _ = self._place(decision_id)
        append(self.connection, community, kind, author, details, decision_id=decision_id, subject=key, salt=salt)

    def _place(self, key: str) -> tuple[str, datetime]:
        """The community of a decision, and when it was made."""
        query = select(decisions.c.community, decisions.c.created_at).where(decisions.c.id == key)
        found = self.connection.execute(query).first()
        if found is None:
            raise ConfigurationError(f"there is no decision {unescape(key)!r}")
        return found.community, found.created_at


class People:
    """Writes what people say of the decisions of a store.

    Args:
        store: where to.
    """

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    @contextmanager
    def change(self) -> Iterator[Change]:
        """One write transaction: everything in the block is stored, or nothing of it.

        Raises:
            AuditUnavailable: the database cannot be written.
        """
        engine = self._store.engine
        try:
            with engine.connect().execution_options(**WRITE) as connection:
                begin_write(connection, self._store.timeout)
                yield Change(connection)
                connection.commit()
        except SQLAlchemyError as error:
            raise unavailable(error, engine.url) from error


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"{what} {value!r} is not one of {', '.join(known)}")
