"""Erase what may not be kept, and keep what must be: one person's texts on request, everybody's after some time.

What is erased is what can say something of a person: texts of source, delivery, candidates and reviewers, the subject,
embeddings, and the salts of the digests, so that nothing can be guessed from those. What was decided, and why, stays, and
so does the chain: an event says what was erased, and `verify` accepts the gaps that an event speaks of, and no others.

Decisions with an open appeal, and drafts that are still held, are left for the next time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, or_, select, update

from guardrail.audit.escaping import identifier
from guardrail.audit.events import append
from guardrail.audit.people import People
from guardrail.audit.tables import (
    appeals,
    decisions,
    embeddings,
    events,
    holds,
    labels,
    reasons,
    reviews,
    rewrites,
    scores,
)
from guardrail.errors import ConfigurationError

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore

__all__ = ["Retained", "erase", "retain", "scrub"]

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Retained:
    """What `retain` has done: decisions whose texts were erased, decisions that were deleted, appeals that were erased."""

    texts: int = 0
    decisions: int = 0
    appeals: int = 0


def erase(
    store: AuditStore,
    *,
    by: str,
    subject: str | None = None,
    conversation: str | None = None,
    request_id: str | None = None,
    decision_id: str | None = None,
    reason: str = "",
) -> int:
    """Erase the texts of one person, conversation, call or decision, and return how many decisions that were.

    Args:
        by: who asked for it; stands in the event.
        subject, conversation, request_id, decision_id: exactly one of them.
        reason: stands in the event for good; no personal data.

    Raises:
        ConfigurationError: none of the four, or several.
        AuditUnavailable: the database cannot be written. What was erased until then is erased; ask again.
    """
    given = {
        column: identifier(value)
        for column, value in (
            (decisions.c.subject, subject),
            (decisions.c.conversation, conversation),
            (decisions.c.request_id, request_id),
            (decisions.c.id, decision_id),
        )
        if value is not None
    }
    if len(given) != 1:
        raise ConfigurationError("say what to erase: a subject, a conversation, a request or a decision, one of them")
    ((column, value),) = given.items()
    waiting = or_(column == value, *([_appealed_by(value)] if subject is not None else []))
    count = 0
    while True:
        with People(store).change() as change:
            found = _some(change.connection, waiting)
            for community, ids in found.items():
                append(
                    change.connection, community, "erasure", identifier(by), {"decisions": ids, "reason": reason}
                )  # fmt: skip
                _blank(change.connection, ids)
        count += sum(map(len, found.values()))
        if not found:
            scrub(store)
            return count


def retain(
    store: AuditStore,
    *,
    keep_text: int | None = None,
    keep_decisions: int | None = None,
    keep_appeals: int | None = None,
    by: str = "retention",
    now: datetime | None = None,
) -> Retained:
    """Erase the texts and delete the decisions that are older than they may be.

    Args:
        keep_text, keep_decisions: days; None keeps them for good.
        keep_appeals: days after an answer for which appellant, statement and answer are kept; None: as long as the text.
        by: who asked for it.
        now: an aware time; default: this moment.

    Raises:
        AuditUnavailable: the database cannot be written. What was done until then is done; call again.
    """
    now = now or datetime.now(UTC)
    with store.engine.connect() as connection:
        communities = connection.scalars(select(decisions.c.community).distinct()).all()
    texts = gone = answered = 0
    for community in communities:
        if keep_decisions is not None:
            gone += _delete_old(store, community, now - timedelta(days=keep_decisions), by)
        if keep_text is not None:
            texts += _erase_old(store, community, now - timedelta(days=keep_text), by)
        if keep_appeals is not None:
            answered += _erase_appeals(store, community, now - timedelta(days=keep_appeals), by)
    if texts or gone or answered:
        scrub(store)
    return Retained(texts, gone, answered)


def _erase_old(store: AuditStore, community: str, before: datetime, by: str) -> int:
    old = (
        (decisions.c.community == community)
        & (decisions.c.created_at < before)
        & decisions.c.erased_at.is_(None)
        & ~_in_use()
    )
    with People(store).change() as change:
        up_to = change.connection.scalar(select(func.max(decisions.c.sequence)).where(old))
        if up_to is None:
            return 0
        details = {"texts_before": before.astimezone(UTC).isoformat(), "up_to": up_to}
        append(change.connection, community, "retention", identifier(by), details)
    count = 0
    while True:
        with People(store).change() as change:
            ids = change.connection.scalars(
                select(decisions.c.id).where(old, decisions.c.sequence <= up_to).limit(_CHUNK)
            ).all()
            _blank(change.connection, ids)
        count += len(ids)
        if not ids:
            return count


def _erase_appeals(store: AuditStore, community: str, before: datetime, by: str) -> int:
    """Erase who appealed, why, and the answer; that there was an appeal, and how it ended, stays."""
    answered = select(appeals.c.id).join(decisions, decisions.c.id == appeals.c.decision_id)
    answered = answered.where(
        decisions.c.community == community, appeals.c.answered_at < before, appeals.c.appellant != ""
    )
    count = 0
    while True:
        with People(store).change() as change:
            tickets = change.connection.scalars(answered.limit(_CHUNK)).all()
            if not tickets:
                return count
            append(change.connection, community, "appeals erased", identifier(by), {"appeals": list(tickets)})
            mine = appeals.c.id.in_(tickets)
            change.connection.execute(update(appeals).where(mine).values(appellant="", statement=""))
            change.connection.execute(update(appeals).where(mine, appeals.c.answer.is_not(None)).values(answer=""))
            change.connection.execute(update(events).where(events.c.subject.in_(tickets)).values(salt=""))
        count += len(tickets)


def _delete_old(store: AuditStore, community: str, before: datetime, by: str) -> int:
    """Cut off the beginning of a chain: all decisions before the first that must stay."""
    mine = decisions.c.community == community
    count = 0
    while True:
        with People(store).change() as change:
            connection = change.connection
            stays = select(func.min(decisions.c.sequence)).where(mine, (decisions.c.created_at >= before) | _in_use())
            first = connection.scalar(stays)
            query = select(decisions.c.id, decisions.c.sequence, decisions.c.hash).where(mine)
            if first is not None:
                query = query.where(decisions.c.sequence < first)
            rows = connection.execute(query.order_by(decisions.c.sequence).limit(_CHUNK)).all()
            if not rows:
                return count
            details = {"decisions_up_to": rows[-1].sequence, "hash": rows[-1].hash}
            append(connection, community, "retention", identifier(by), details)
            _delete(connection, [row.id for row in rows])
        count += len(rows)


def _some(connection: Connection, wanted: ColumnElement[bool]) -> dict[str, list[str]]:
    query = select(decisions.c.community, decisions.c.id).where(wanted, decisions.c.erased_at.is_(None)).limit(_CHUNK)
    found: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.community].append(row.id)
    return dict(sorted(found.items()))


def _appealed_by(person: str) -> ColumnElement[bool]:
    return exists().where(appeals.c.decision_id == decisions.c.id, appeals.c.appellant == person)


def _in_use() -> ColumnElement[bool]:
    appealed = exists().where(appeals.c.decision_id == decisions.c.id, appeals.c.status == "open")
    return appealed | exists().where(holds.c.decision_id == decisions.c.id, holds.c.status == "held")


def _blank(connection: Connection, ids: Sequence[str]) -> None:
    """Erase what the decisions hold of a person."""
    for some in _slices(ids):
        texts: dict[str, Any] = {"source_text": None, "delivered_text": None, "subject": None, "salt": ""}
        connection.execute(
            update(decisions).where(decisions.c.id.in_(some)).values(**texts, erased_at=datetime.now(UTC))
        )
        connection.execute(update(rewrites).where(rewrites.c.decision_id.in_(some)).values(text=None))
        connection.execute(delete(embeddings).where(embeddings.c.decision_id.in_(some)))
        connection.execute(update(holds).where(holds.c.decision_id.in_(some)).values(text=None))
        words = update(reviews).where(reviews.c.decision_id.in_(some))
        connection.execute(words.values(comment="", edited_text=None))
        words = update(appeals).where(appeals.c.decision_id.in_(some))
        connection.execute(words.values(appellant="", statement=""))
        connection.execute(words.where(appeals.c.answer.is_not(None)).values(answer=""))
        connection.execute(update(events).where(events.c.decision_id.in_(some)).values(salt=""))


def _delete(connection: Connection, ids: Iterable[str]) -> None:
    for some in _slices(list(ids)):
        for table in (labels, reviews, appeals, holds, embeddings, scores, reasons, rewrites):
            connection.execute(delete(table).where(table.c.decision_id.in_(some)))
        connection.execute(update(events).where(events.c.decision_id.in_(some)).values(salt=""))
        connection.execute(delete(decisions).where(decisions.c.id.in_(some)))


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]


def scrub(store: AuditStore) -> None:
    """On SQLite, let no freed page, index segment or log keep what was erased. PostgreSQL does so when it vacuums."""
    if store.engine.dialect.name != "sqlite":
        return
    with store.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA secure_delete=ON")
        driver.execute("INSERT INTO decisions_search(decisions_search) VALUES ('optimize')")
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
