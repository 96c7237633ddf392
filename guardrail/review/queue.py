"""What waits for a person, and in which order; who works on what. `filling` says what gets here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Text, case, exists, func, or_, select, type_coerce, update

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.sealing import SealedText, sealed
from guardrail.audit.tables import decisions, holds, reviews
from guardrail.errors import ConfigurationError
from guardrail.review import tables
from guardrail.review.accounts import now
from guardrail.review.diff import shorten

__all__ = [
    "CLAIM",
    "PAGE",
    "VIEWS",
    "Item",
    "assign",
    "calm",
    "claim_next",
    "counts",
    "excerpts",
    "item_of",
    "page",
    "urgent",
]

CLAIM = timedelta(minutes=15)
"""How long an item that somebody opened is kept from being handed to others."""

PAGE = 40


@dataclass(frozen=True, slots=True)
class Item:
    """One decision that waits, or waited, for a person."""

    decision_id: str
    community: str
    created_at: datetime
    status: str
    priority: float
    uncertainty: float
    severity: float
    why: str
    state: str
    rule: str
    risk: float
    needs: int
    version: int
    assigned_to: str | None
    assigned_at: datetime | None
    outcome: str | None
    done_at: datetime | None


def item_of(connection: Connection, decision_id: str) -> Item | None:
    """The item of a decision; None where it never waited."""
    query = select(tables.queue).where(tables.queue.c.decision_id == identifier(decision_id))
    row = connection.execute(query).mappings().first()
    return None if row is None else _item(row)


def _item(row: Mapping[Any, Any]) -> Item:
    return Item(**(dict(row) | {name: unescape(row[name]) for name in ("decision_id", "community", "rule")}))


VIEWS: Mapping[str, tuple[str, ...]] = {
    "open": ("open",),
    "second": ("second",),
    "lead": ("split",),
    "done": ("done",),
}


def page(
    connection: Connection, community: str, view: str = "open", *, rule: str | None = None, after: str | None = None
) -> tuple[list[Item], str | None]:
    """One page of a view, most urgent first (`done`: newest first), and what `after` takes for the next.

    Args:
        view: open (nobody has decided), second (a second person is asked), lead (reviewers disagree), done.

    Raises:
        ConfigurationError: there is no such view, or `after` is none.
    """
    table = tables.queue
    if view not in VIEWS:
        raise ConfigurationError(f"there is no view {view[:40]!r} of the queue; known: {', '.join(VIEWS)}")
    query = select(table).where(table.c.community == identifier(community), table.c.status.in_(VIEWS[view]))
    order: Any = table.c.done_at if view == "done" else table.c.priority
    if rule:
        query = query.where(table.c.rule == identifier(rule))
    if after:
        value, key = _cursor(after, view)
        query = query.where(order <= value, or_(order < value, table.c.decision_id < key))
    rows = connection.execute(query.order_by(order.desc(), table.c.decision_id.desc()).limit(PAGE + 1)).mappings().all()
    items = [_item(row) for row in rows[:PAGE]]
    if len(rows) <= PAGE:
        return items, None
    last = items[-1]
    at = last.done_at.isoformat() if view == "done" and last.done_at else repr(last.priority)
    return items, f"{at}~{last.decision_id}"


def excerpts(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """The beginnings of some decisions' drafts, for a list; no more than that is read of a draft of a megabyte, unless it is
    sealed."""
    table = decisions
    keys = [identifier(key) for key in ids]
    text = type_coerce(table.c.source_text, Text)
    beginning = case((sealed(text), text), else_=func.substr(text, 1, 400))
    query = select(table.c.id, type_coerce(beginning, SealedText())).where(table.c.id.in_(keys))
    return {unescape(key): shorten(unescape(text)) for key, text in connection.execute(query) if text is not None}


def _cursor(after: str, view: str) -> tuple[Any, str]:
    value, _, key = after.partition("~")
    try:
        return (datetime.fromisoformat(value) if view == "done" else float(value)), key
    except ValueError:
        raise ConfigurationError("`after` is not what the page before said") from None


def counts(connection: Connection, community: str, most: int = 1000) -> dict[str, int]:
    """How many items wait in each view, counted up to `most`."""
    table = tables.queue
    found = {}
    for view, statuses in VIEWS.items():
        if view == "done":
            continue
        mine = (table.c.community == identifier(community)) & table.c.status.in_(statuses)
        some = select(table.c.decision_id).where(mine).limit(most).subquery()
        found[view] = connection.scalar(select(func.count()).select_from(some)) or 0
    return found


def claim_next(connection: Connection, community: str, user: str, *, skip: str = "", lead: bool = False) -> str | None:
    """Hand the most urgent item that nobody is working on to `user`; return its decision. Runs in a write transaction.

    Args:
        skip: a decision that is not handed out: the one that was just decided.
        lead: items on which reviewers disagree are handed out too.
    """
    table, at = tables.queue, now()
    # A claim from the future was made before the clock was set back: it must not hold for as long as that.
    stale = or_(table.c.assigned_at < at - CLAIM, table.c.assigned_at > at + CLAIM)
    free = or_(table.c.assigned_to.is_(None), table.c.assigned_to == user, stale)
    # One's own first opinion does not count as the second.
    decided = exists().where(
        reviews.c.reviewer == identifier(user),
        reviews.c.decision_id == table.c.decision_id,
        reviews.c.verdict != "comment",
    )
    query = (
        select(table.c.decision_id, table.c.priority)
        .where(table.c.community == identifier(community), free, table.c.decision_id != identifier(skip))
        .order_by(table.c.priority.desc(), table.c.decision_id.desc())
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = [
        connection.execute(query.where(table.c.status == status)).first() for status in ("open", *["split"] * lead)
    ]
    found.append(connection.execute(query.where(table.c.status == "second", ~decided)).first())
    best = max((row for row in found if row is not None), key=lambda row: row.priority, default=None)
    if best is None:
        return None
    taken = {"assigned_to": user, "assigned_at": at}
    connection.execute(update(table).where(table.c.decision_id == best.decision_id).values(**taken))
    return unescape(best.decision_id)


def calm(connection: Connection, community: str) -> int:
    """Put drafts whose readers have been answered meanwhile back among the others; return how many."""
    table = tables.queue
    over = exists().where(holds.c.decision_id == table.c.decision_id, holds.c.status == "expired")
    waiting = table.c.status.in_(("open", "second", "split")) & (table.c.priority > 1)
    mine = (table.c.community == identifier(community)) & waiting & (table.c.why == "held") & over
    return connection.execute(update(table).where(mine).values(priority=table.c.priority - 1, why="acted")).rowcount


def urgent(connection: Connection, community: str) -> int:
    """How many drafts are held right now while their readers wait."""
    mine = (holds.c.community == identifier(community)) & (holds.c.status == "held")
    return connection.scalar(select(func.count()).select_from(holds).where(mine)) or 0


def assign(connection: Connection, decision_id: str, user: str | None) -> None:
    """Give an item to somebody, or (None) to nobody."""
    table = tables.queue
    taken = {"assigned_to": user, "assigned_at": None if user is None else now()}
    connection.execute(update(table).where(table.c.decision_id == identifier(decision_id)).values(**taken))
