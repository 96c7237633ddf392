"""What a reviewer's word changes: the vote, the second person, the held draft that is let go or not.

An item goes open -> done when one person decides. Under a two-person rule it goes open -> second -> done when a second person says
the same, and -> split when they do not; a lead settles that. Every step is chained in the record in the same transaction that
moves the item, and a version number that the page carried decides between two people who press a button at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.people import Change, People
from guardrail.audit.tables import holds, reviews
from guardrail.errors import ConfigurationError
from guardrail.review import tables
from guardrail.review.accounts import now
from guardrail.review.desk import Desk
from guardrail.review.filling import ensure
from guardrail.review.queue import Item

__all__ = ["DECIDING", "Conflict", "Given", "Opinion", "decide", "opinions", "reopen"]

DECIDING = ("uphold", "overturn", "edit", "escalate")


class Conflict(Exception):
    """Somebody else was quicker, or this person has had their say. The message says which."""


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody decided on a page.

    Attributes:
        verdict: uphold (a held draft: refuse), overturn (a held draft: release as it is), edit (deliver this instead),
            escalate (a lead should decide).
        version: of the item when the page was made.
        lead: the person is a lead of the community.
    """

    verdict: str
    version: int
    reviewer: str
    comment: str = ""
    edited_text: str | None = None
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Opinion:
    """A review as recorded."""

    id: str
    reviewer: str
    verdict: str
    comment: str
    edited_text: str | None
    preferred: int | None
    over: int | None
    created_at: datetime


def opinions(connection: Connection, decision_id: str) -> list[Opinion]:
    """All reviews of a decision, oldest first."""
    query = select(reviews).where(reviews.c.decision_id == identifier(decision_id)).order_by(reviews.c.created_at)
    return [_opinion(row) for row in connection.execute(query).mappings()]


def _opinion(row: Any) -> Opinion:
    edited = None if row["edited_text"] is None else unescape(row["edited_text"])
    comment, reviewer = unescape(row["comment"]), unescape(row["reviewer"])
    names = ("id", "verdict", "preferred", "over", "created_at")
    return Opinion(reviewer=reviewer, comment=comment, edited_text=edited, **{name: row[name] for name in names})


def decide(desk: Desk, decision_id: str, given: Given) -> Item:
    """Record a verdict and move the item on; return it as it is then.

    Raises:
        Conflict: the item changed since the page was made, this person has decided before, or only a lead may.
        ConfigurationError: no such verdict or decision, an empty edit, or a held draft whose time is up.
        AuditUnavailable: the database is away; nothing was recorded.
    """
    if given.verdict not in DECIDING:
        raise ConfigurationError(f"there is no verdict {given.verdict[:40]!r}")
    if given.verdict == "edit" and not (given.edited_text or "").strip():
        raise ConfigurationError("write the text that should be delivered, or choose another verdict")
    with People(desk.store).change() as change:
        item = ensure(change.connection, desk.policies, decision_id, "asked")
        earlier = _votes(change.connection, item)
        _refuse(item, given, earlier)
        review = change.review(
            decision_id,
            reviewer=given.reviewer,
            verdict=given.verdict,
            comment=given.comment,
            edited_text=given.edited_text if given.verdict == "edit" else None,
        )
        status, outcome = _next(item, given, earlier)
        _move(change.connection, item, status, outcome)
        if status == "done" and outcome is not None:
            _settle(change, item, given, outcome)
            details = {"verdict": outcome, "review": review, "people": len(earlier) + 1}
            change.event(
                item.community, kind="verdict", author=given.reviewer, decision_id=decision_id, details=details
            )
        return ensure(change.connection, desk.policies, decision_id, "asked")


def _votes(connection: Connection, item: Item) -> list[Opinion]:
    """The deciding reviews since the item was last opened: as many as its status says."""
    found = [one for one in opinions(connection, item.decision_id) if one.verdict in DECIDING]
    if item.status == "second":
        return found[-1:]
    return found[-2:] if item.status == "split" else []


def _refuse(item: Item, given: Given, earlier: Sequence[Opinion]) -> None:
    if item.status == "done":
        raise Conflict(f"This decision was settled meanwhile ({item.outcome}). A lead can open it again.")
    if item.version != given.version:
        raise Conflict("Somebody else decided on this while you were reading. Below is how it stands now.")
    if item.status == "second" and any(one.reviewer == given.reviewer for one in earlier):
        raise Conflict("You have decided on this already: the rule asks for a second person.")
    if item.status == "split" and not given.lead:
        raise Conflict("This waits for a lead of the community.")


def _next(item: Item, given: Given, earlier: Sequence[Opinion]) -> tuple[str, str | None]:
    """The item's next status and, where it is settled, the outcome."""
    if given.verdict == "escalate":
        return "split", None
    if item.status == "split" or item.needs <= 1:
        return "done", given.verdict
    if item.status == "second":
        agreed = bool(earlier) and _same(earlier[-1], given)
        return ("done", given.verdict) if agreed else ("split", None)
    return "second", None


def _same(first: Opinion, given: Given) -> bool:
    """Two people agree on an edit only if they agree on its words: it is what will be delivered."""
    if first.verdict != given.verdict:
        return False
    return given.verdict != "edit" or (first.edited_text or "").strip() == (given.edited_text or "").strip()


def _move(connection: Connection, item: Item, status: str, outcome: str | None) -> None:
    table = tables.queue
    mine = (table.c.decision_id == identifier(item.decision_id)) & (table.c.version == item.version)
    values: dict[str, Any] = {"status": status, "version": item.version + 1, "assigned_to": None, "assigned_at": None}
    if status == "done":
        values |= {"outcome": outcome, "done_at": now()}
    if connection.execute(update(table).where(mine).values(**values)).rowcount != 1:
        raise Conflict("Somebody else decided on this at the same moment. Below is how it stands now.")


def _settle(change: Change, item: Item, given: Given, outcome: str) -> None:
    """Let a held draft go, or not; one whose time is up stays expired: its reader has been answered."""
    key = identifier(item.decision_id)
    if change.connection.scalar(select(holds.c.status).where(holds.c.decision_id == key)) != "held":
        return
    released = outcome in {"overturn", "edit"}
    text = given.edited_text if outcome == "edit" else None
    change.settle(item.decision_id, status="released" if released else "refused", by=given.reviewer, text=text)


def reopen(desk: Desk, decision_id: str, by: str, version: int) -> None:
    """Put a settled item back into the queue. What was released stays released.

    Raises:
        Conflict: the item changed since the page was made, or is not settled.
    """
    table = tables.queue
    with People(desk.store).change() as change:
        item = ensure(change.connection, desk.policies, decision_id, "asked")
        if item.status != "done" or item.version != version:
            raise Conflict("This is not settled any more: somebody else has opened it again.")
        mine = (table.c.decision_id == identifier(decision_id)) & (table.c.version == version)
        values = {"status": "open", "version": version + 1, "outcome": None, "done_at": None}
        if change.connection.execute(update(table).where(mine).values(**values)).rowcount != 1:
            raise Conflict("Somebody else has opened it again at the same moment.")
        change.event(item.community, kind="reopened", author=by, decision_id=decision_id)
