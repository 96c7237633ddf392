"""Appeals, the dashboard, and who saw what."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Response
from sqlalchemy import select, tuple_

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.query import cursor_of, parse_cursor
from guardrail.errors import ConfigurationError
from guardrail.review import appeals, dashboard, tables
from guardrail.review.access import Denied, Visit
from guardrail.review.database import reading
from guardrail.review.render import page, redirect

__all__ = ["access_log", "answer", "appeal", "appeals_page", "overview"]

_ROWS = 100


def appeals_page(visit: Visit) -> Response:
    """The appeals of one community."""
    status = visit.given("status", "open")
    with reading(visit.desk.store) as connection:
        try:
            found = appeals.page(connection, visit.community, status)
        except ConfigurationError as error:
            raise Denied(400, f"{error}.") from None
    return page(visit, "appeals.html", appeals=found, chosen=status, statuses=appeals.STATUSES)


def appeal(visit: Visit, *, status: int = 200, error: str = "") -> Response:
    """One appeal."""
    with reading(visit.desk.store) as connection:
        found = appeals.appeal_of(connection, visit.ticket)
    return page(visit, "appeal.html", status, appeal=found, error=error)


def answer(visit: Visit) -> Response:
    """Grant or refuse an appeal, with reasons."""
    fields = visit.fields
    try:
        appeals.answer(visit.desk, visit.ticket, fields.get("verdict", ""), fields.get("answer", ""), visit.me.name)
    except ConfigurationError as error:
        visit.typed = dict(fields)
        return appeal(visit, status=409 if "already" in str(error) else 400, error=f"Not answered: {error}.")
    return redirect(f"/appeal?ticket={quote(visit.ticket, safe='')}")


def overview(visit: Visit) -> Response:
    """How a community's moderation goes."""
    with reading(visit.desk.store) as connection:
        found = dashboard.gather(connection, visit.community)
    return page(visit, "dashboard.html", board=found)


def access_log(visit: Visit) -> Response:
    """Who saw or tried what in a community, newest first, a page at a time."""
    table = tables.access_log
    decision, actor, after = visit.given("decision"), visit.given("actor"), visit.given("after")
    query = select(table).where(table.c.community == identifier(visit.community))
    if decision:
        query = query.where(table.c.decision_id == identifier(decision))
    if actor:
        query = query.where(table.c.actor == identifier(actor))
    if after:
        moment, key = parse_cursor(after)
        query = query.where(tuple_(table.c.created_at, table.c.id) < (moment, key))
    query = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(_ROWS + 1)
    with reading(visit.desk.store) as connection:
        rows = [dict(row) | {"actor": unescape(row["actor"])} for row in connection.execute(query).mappings()]
    following = cursor_of(rows[_ROWS - 1]) if len(rows) > _ROWS else None
    return page(
        visit, "access.html", rows=rows[:_ROWS], decision=decision, actor=actor, after=after, following=following
    )
