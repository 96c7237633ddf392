"""Appeals: a user says that a decision was wrong, holds a ticket, and gets an answer from a person who did not decide it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.people import People
from guardrail.audit.tables import appeals, decisions
from guardrail.errors import ConfigurationError
from guardrail.review.desk import Desk
from guardrail.review.filling import ensure
from guardrail.review.verdicts import DECIDING, opinions

__all__ = ["LONGEST", "Appeal", "answer", "appeal_of", "appeals_on", "file", "page", "withdraw"]

LONGEST = 10_000
"""Code points of a statement or an answer."""

PAGE = 40
STATUSES = ("open", "granted", "refused", "withdrawn")


@dataclass(frozen=True, slots=True)
class Appeal:
    """One appeal. `ticket` is what the user holds; nobody can guess one."""

    ticket: str
    decision_id: str
    appellant: str
    statement: str
    status: str
    answer: str | None
    answered_by: str | None
    created_at: datetime
    answered_at: datetime | None


def file(desk: Desk, decision_id: str, appellant: str, statement: str) -> str:
    """Open an appeal, move its decision to the front of the queue, and return the ticket.

    Raises:
        ConfigurationError: no such decision, no statement, one that is too long, or an appeal of the same user is open.
    """
    statement, appellant = statement.strip(), appellant.strip()
    if not appellant or not 1 <= len(statement) <= LONGEST:
        raise ConfigurationError(f"an appeal needs an appellant and a statement of 1 to {LONGEST} characters")
    with People(desk.store).change() as change:
        mine = (appeals.c.decision_id == identifier(decision_id)) & (appeals.c.appellant == identifier(appellant))
        open_ = select(appeals.c.id).where(mine, appeals.c.status == "open")
        if change.connection.scalar(open_) is not None:
            raise ConfigurationError("an appeal of this user against this decision is open already")
        ticket = change.appeal(decision_id, appellant=appellant, statement=statement)
        ensure(change.connection, desk.policies, decision_id, "appeal")
        return ticket


def answer(desk: Desk, ticket: str, status: str, text: str, by: str) -> None:
    """Answer an open appeal.

    Raises:
        ConfigurationError: no such appeal, answered already, no text, or the person answering decided the case first.
    """
    text = text.strip()
    if status not in {"granted", "refused"}:
        raise ConfigurationError("an appeal is granted or refused")
    if not 1 <= len(text) <= LONGEST:
        raise ConfigurationError(f"an answer has 1 to {LONGEST} characters: the user is owed a reason")
    with People(desk.store).change() as change:
        found = appeal_of(change.connection, ticket)
        if found is None:
            raise ConfigurationError("there is no such appeal")
        said = opinions(change.connection, found.decision_id)
        before = {one.reviewer for one in said if one.verdict in DECIDING and one.created_at < found.created_at}
        if by in before:
            raise ConfigurationError("you took part in the decision that is appealed: somebody else has to answer")
        change.answer(ticket, status=status, answer=text, answered_by=by)


def withdraw(desk: Desk, ticket: str, by: str) -> None:
    """Take an open appeal back, as its user wishes.

    Raises:
        ConfigurationError: no such appeal, or answered already.
    """
    with People(desk.store).change() as change:
        change.answer(ticket, status="withdrawn", answer="", answered_by=by)


def appeal_of(connection: Connection, ticket: str) -> Appeal | None:
    """The appeal of a ticket."""
    row = connection.execute(select(appeals).where(appeals.c.id == identifier(ticket))).mappings().first()
    return None if row is None else _appeal(row)


def appeals_on(connection: Connection, decision_id: str) -> list[Appeal]:
    """All appeals against a decision, oldest first."""
    query = select(appeals).where(appeals.c.decision_id == identifier(decision_id)).order_by(appeals.c.created_at)
    return [_appeal(row) for row in connection.execute(query).mappings()]


def page(connection: Connection, community: str, status: str) -> list[Appeal]:
    """Appeals of one status: open ones oldest first (they wait longest), others newest first.

    Raises:
        ConfigurationError: there is no such status.
    """
    if status not in STATUSES:
        raise ConfigurationError(f"there is no status {status[:40]!r} of an appeal; known: {', '.join(STATUSES)}")
    order = appeals.c.created_at if status == "open" else appeals.c.created_at.desc()
    query = (
        select(appeals)
        .join(decisions, decisions.c.id == appeals.c.decision_id)
        .where(appeals.c.status == status, decisions.c.community == identifier(community))
        .order_by(order)
        .limit(PAGE)
    )
    return [_appeal(row) for row in connection.execute(query).mappings()]


def _appeal(row: Mapping[Any, Any]) -> Appeal:
    reply = None if row["answer"] is None else unescape(row["answer"])
    by = None if row["answered_by"] is None else unescape(row["answered_by"])
    statement = unescape(row["statement"])
    return Appeal(row["id"], unescape(row["decision_id"]), unescape(row["appellant"]), statement, row["status"], reply, by,
                  row["created_at"], row["answered_at"])  # fmt: skip
