"""What programs call, with a token: appeals on behalf of users, statements of reasons, verdicts on held drafts, how much waits."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from guardrail.audit.holds import look
from guardrail.errors import ConfigurationError
from guardrail.review import appeals, filling, queue, verdicts
from guardrail.review.access import Denied, Visit
from guardrail.review.database import reading
from guardrail.review.render import document
from guardrail.review.statement import statement

__all__ = ["appeal", "file_appeal", "hold", "reasons", "waiting", "withdraw_appeal"]


def _appeal(visit: Visit, ticket: str) -> dict[str, Any]:
    with reading(visit.desk.store) as connection:
        found = appeals.appeal_of(connection, ticket)
    if found is None:
        raise Denied(404, "there is no such appeal")
    return {
        "ticket": found.ticket,
        "decision": found.decision_id,
        "status": found.status,
        "filed_at": found.created_at.isoformat(),
        "answer": found.answer,
        "answered_at": found.answered_at.isoformat() if found.answered_at else None,
    }


def file_appeal(visit: Visit) -> Response:
    """File an appeal: `id` (of the decision), `appellant`, `statement`. Answers 201 with the ticket."""
    try:
        ticket = appeals.file(
            visit.desk, visit.decision_id, visit.fields.get("appellant", ""), visit.fields.get("statement", "")
        )
    except ConfigurationError as error:
        raise Denied(409 if "open already" in str(error) else 422, str(error)) from None
    return document(_appeal(visit, ticket), 201)


def appeal(visit: Visit) -> Response:
    """How an appeal stands, and its answer."""
    return document(_appeal(visit, visit.ticket))


def withdraw_appeal(visit: Visit) -> Response:
    """Take an appeal back."""
    try:
        appeals.withdraw(visit.desk, visit.ticket, visit.actor)
    except ConfigurationError as error:
        raise Denied(409, str(error)) from None
    return document(_appeal(visit, visit.ticket))


def reasons(visit: Visit) -> Response:
    """The statement of reasons of a decision, in plain language."""
    found = visit.desk.store.get(visit.decision_id)
    if found is None:
        raise Denied(404, "there is no such decision")
    with reading(visit.desk.store) as connection:
        rules = visit.desk.policies.rules(connection, found.revision)
        item = queue.item_of(connection, found.id)
        people = [one.reviewer for one in verdicts.opinions(connection, found.id)]
    made = statement(found, rules, outcome=item.outcome if item else None, people=people)
    sections = [{"heading": heading, "text": body} for heading, body in made.sections]
    return document({"decision": found.id, "sections": sections, "text": made.text})


def hold(visit: Visit) -> Response:
    """How a held draft stands: held, released (with the text), refused, expired."""
    settled = look(visit.desk.store, visit.decision_id)
    if settled is None:
        raise Denied(404, "this draft was never held")
    text = settled.text
    if settled.status == "released" and text is None:
        found = visit.desk.store.get(visit.decision_id)
        text = found.source_text if found is not None else None
    released = settled.status == "released"
    return document({"decision": visit.decision_id, "status": settled.status, "text": text if released else None})


def waiting(visit: Visit) -> Response:
    """How many items wait in a community, by view; no text."""
    with reading(visit.desk.store) as connection:
        counts = queue.counts(connection, visit.community)
        behind = filling.backlog(connection, visit.community)
    return document({"community": visit.community, "waiting": counts, "not_looked_through": behind})
