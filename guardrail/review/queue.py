"""What waits for a person, and in which order.

The record grows by thousands of decisions an hour, of which few need anybody. Each community's chain is read once, in its own
order, from where the last reading ended (`watermarks`); what needs a look becomes a row of `queue`, and all else only counts for
the dashboard. So a page reads an index of what waits, however long the record is, and nothing is read twice or left out, however
many processes read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, exists, func, or_, select, update

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.store import AuditStore
from guardrail.audit.tables import chain_heads, decisions, holds, policy_revisions, reasons, reviews
from guardrail.errors import ConfigurationError
from guardrail.review import tables
from guardrail.review.accounts import now
from guardrail.review.database import reading, upsert, writing
from guardrail.review.diff import shorten
from guardrail.review.priority import NEAR, Assessment, assess, sampled
from guardrail.types import Action, State

__all__ = [
    "CLAIM",
    "Item",
    "Policies",
    "backlog",
    "calm",
    "claim_next",
    "communities",
    "ensure",
    "fill",
    "item_of",
    "page",
]

CLAIM = timedelta(minutes=15)
"""How long an item that somebody opened is kept from being handed to others."""

PAGE = 40
_BATCH = 1000


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


class Policies:
    """The policies on record, read once each: a revision never changes."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, Any]] = {}

    def document(self, connection: Connection, revision: str) -> Mapping[str, Any]:
        """The resolved policy document of a revision; empty where it is not on record or cannot be read."""
        known = self._known.get(revision)
        if known is None:
            table = policy_revisions
            stored = connection.scalar(select(table.c.document).where(table.c.revision == identifier(revision)))
            known = self._known[revision] = _document(stored)
        return known

    def rules(self, connection: Connection, revision: str) -> Mapping[str, Any]:
        """The rules of a revision, by name."""
        found: Mapping[str, Any] = self.document(connection, revision).get("rules") or {}
        return found


def _document(stored: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(unescape(stored or "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# --------------------------------------------------------------------------------------------------------- filling


def communities(connection: Connection) -> list[str]:
    """All communities with a decision on record."""
    return [unescape(name) for name in connection.scalars(select(chain_heads.c.community).order_by("community"))]


def backlog(connection: Connection, community: str) -> int:
    """How many decisions of a community have not been looked through yet."""
    mine = identifier(community)
    end = connection.scalar(select(chain_heads.c.sequence).where(chain_heads.c.community == mine)) or 0
    table = tables.watermarks
    return end - (connection.scalar(select(table.c.sequence).where(table.c.community == mine)) or 0)


def fill(store: AuditStore, policies: Policies, community: str, most: int = _BATCH) -> int:
    """Look through up to `most` decisions of a community that were not looked through yet; return how many."""
    mine, table = identifier(community), tables.watermarks
    with reading(store) as connection:
        if backlog(connection, community) <= 0:  # the usual case takes no lock
            return 0
    with writing(store) as connection:
        first = {"community": mine, "sequence": 0}
        connection.execute(upsert(connection, table).values(**first).on_conflict_do_nothing())
        start = connection.scalar(select(table.c.sequence).where(table.c.community == mine).with_for_update()) or 0
        rows = _unread(connection, mine, start, most)
        if not rows:
            return 0
        _count(connection, mine, rows)
        _enqueue(connection, policies, rows)
        connection.execute(update(table).where(table.c.community == mine).values(sequence=rows[-1]["sequence"]))
        return len(rows)


_NEEDED = ("id", "community", "sequence", "created_at", "state", "action", "risk", "rules", "revision")


def _unread(connection: Connection, community: str, start: int, most: int) -> Sequence[Mapping[Any, Any]]:
    first = reasons.alias()
    query = (
        select(*(decisions.c[name] for name in _NEEDED), first.c.rule)
        .outerjoin(first, (first.c.decision_id == decisions.c.id) & (first.c.position == 0))
        .where(decisions.c.community == community, decisions.c.sequence > start)
        .order_by(decisions.c.sequence)
        .limit(most)
    )
    return connection.execute(query).mappings().all()


def _count(connection: Connection, community: str, rows: Sequence[Mapping[Any, Any]]) -> None:
    states = Counter((row["created_at"].date().isoformat(), row["state"]) for row in rows)
    acted = Counter((row["created_at"].date().isoformat(), row["rule"]) for row in rows if row["rule"])
    for table, key, value, counts in (
        (tables.daily, "state", "decisions", states),
        (tables.rule_days, "rule", "acted", acted),
    ):
        for (day, name), number in counts.items():
            row = {"community": community, "day": day, key: name, value: number}
            statement = upsert(connection, table).values(**row)
            grown = {value: table.c[value] + statement.excluded[value]}
            connection.execute(statement.on_conflict_do_update(index_elements=["community", "day", key], set_=grown))


def _enqueue(connection: Connection, policies: Policies, rows: Sequence[Mapping[Any, Any]]) -> None:
    made = [item for row in rows if (item := _wanted(connection, policies, row)) is not None]
    if made:
        connection.execute(upsert(connection, tables.queue).on_conflict_do_nothing(), made)


def _wanted(connection: Connection, policies: Policies, row: Mapping[Any, Any]) -> dict[str, Any] | None:
    """The row of the queue for a decision; None where nobody needs to look."""
    rules = policies.rules(connection, unescape(row["revision"]))
    action = Action(row["action"])
    found = assess(row["rules"], rules, action, row["risk"])
    if row["state"] == State.ESCALATED:
        why = "held"
    elif action > Action.ALLOW:
        why = "acted"
    elif row["state"] == State.ALLOWED and found.uncertainty >= NEAR:
        why = "near"
    elif row["state"] == State.ALLOWED and sampled(row["id"]):
        why = "sample"
    else:
        return None
    return _row(row, found, why, rules)


def _row(row: Mapping[Any, Any], found: Assessment, why: str, rules: Mapping[str, Any]) -> dict[str, Any]:
    rule = row["rule"] or found.rule
    return {
        "decision_id": row["id"],
        "community": row["community"],
        "created_at": row["created_at"],
        "status": "open",
        "priority": found.priority + (why in {"held", "appeal"}),
        "uncertainty": found.uncertainty,
        "severity": found.severity,
        "why": why,
        "state": row["state"],
        "rule": rule,
        "risk": row["risk"],
        "needs": _needs(rules, rule),
        "version": 1,
        "assigned_to": None,
        "assigned_at": None,
        "outcome": None,
        "done_at": None,
    }


def _needs(rules: Mapping[str, Any], rule: str) -> int:
    """How many people must agree, as the policy's rule says (`reviewers: 2`)."""
    asked = (rules.get(rule) or {}).get("reviewers", 1)
    return 2 if isinstance(asked, int) and asked >= 2 else 1


def ensure(connection: Connection, policies: Policies, decision_id: str, why: str) -> Item:
    """The item of a decision, made now if it had none; an appeal opens it again and moves it to the front.

    Raises:
        ConfigurationError: there is no such decision.
    """
    first = reasons.alias()
    query = (
        select(*(decisions.c[name] for name in _NEEDED), first.c.rule)
        .outerjoin(first, (first.c.decision_id == decisions.c.id) & (first.c.position == 0))
        .where(decisions.c.id == identifier(decision_id))
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise ConfigurationError(f"there is no decision {decision_id!r}")
    rules = policies.rules(connection, unescape(row["revision"]))
    found = assess(row["rules"], rules, Action(row["action"]), row["risk"])
    made = _row(row, found, why, rules)
    connection.execute(upsert(connection, tables.queue).values(**made).on_conflict_do_nothing())
    table = tables.queue
    mine = table.c.decision_id == row["id"]
    if why == "appeal":
        opened = {"status": "open", "why": why, "priority": 1 + found.priority, "version": table.c.version + 1}
        opened |= {"outcome": None, "done_at": None}
        connection.execute(update(table).where(mine, table.c.why != "held").values(**opened, assigned_to=None))
    item = item_of(connection, decision_id)
    if item is None:
        raise ConfigurationError(f"there is no decision {decision_id!r}")
    return item


# --------------------------------------------------------------------------------------------------------- reading


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
    """The beginnings of some decisions' drafts, for a list; no more than that is read of a draft of a megabyte."""
    table = decisions
    keys = [identifier(key) for key in ids]
    query = select(table.c.id, func.substr(table.c.source_text, 1, 400)).where(table.c.id.in_(keys))
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
    free = or_(table.c.assigned_to.is_(None), table.c.assigned_to == user, table.c.assigned_at < at - CLAIM)
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
