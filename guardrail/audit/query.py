"""Reading the record in pages: the decisions that match some filters, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, or_, select

from guardrail.audit import scan, search
from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.sealing import seals_of
from guardrail.audit.stored import StoredCandidate, StoredDecision, read, read_many, reasons_of, stored
from guardrail.audit.tables import decisions, reasons, reviews
from guardrail.errors import ConfigurationError
from guardrail.types import Action, Stage, State

__all__ = [
    "Filters",
    "Page",
    "StoredCandidate",
    "StoredDecision",
    "find",
    "find_ids",
    "page_query",
    "read",
    "read_many",
]

Row = Mapping[Any, Any]

MAX_PAGE = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Decisions, newest first. `next` is what `after` takes to get the page that follows; None at the end."""

    items: tuple[StoredDecision, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """What a decision must be to be listed; None asks for nothing. See `AuditStore.list`."""

    community: str | None = None
    rule: str | None = None
    action: Action | str | None = None
    state: State | str | None = None
    stage: Stage | str | None = None
    min_risk: float | None = None
    max_risk: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    request_id: str | None = None
    conversation: str | None = None
    reviewer: str | None = None
    subject: str | None = None

    def conditions(self, connection: Connection) -> list[ColumnElement[bool]]:
        """Return the SQL conditions in the dialect of `connection`, all but that of the rule (see `page_query`).

        Raises:
            ConfigurationError: a value that no decision can have, which would look like an empty record.
        """
        table = decisions.c
        found = self.placed(table)
        for column, value in (
            (table.request_id, self.request_id),
            (table.conversation, self.conversation),
            (table.subject, self.subject),
        ):
            if value is not None:
                found.append(column == identifier(value))
        for column, kind, value in (
            (table.action, Action, self.action),
            (table.state, State, self.state),
            (table.stage, Stage, self.stage),
        ):
            if value is not None:
                found.append(column == _member(kind, value))
        if self.min_risk is not None:
            found.append(table.risk >= _number("min_risk", self.min_risk))
        if self.max_risk is not None:
            found.append(table.risk <= _number("max_risk", self.max_risk))
        if self.text is not None:
            found.append(search.matches(connection, self.text))
        if self.reviewer is not None:
            theirs = reviews.c.decision_id == table.id
            found.append(exists().where(theirs, reviews.c.reviewer == identifier(self.reviewer)))
        return found

    def placed(self, columns: Any) -> list[ColumnElement[bool]]:
        """Return the conditions on `community` and `created_at` in the columns of a table that has both."""
        found: list[ColumnElement[bool]] = []
        if self.community is not None:
            found.append(columns.community == identifier(self.community))
        if self.since is not None:
            found.append(columns.created_at >= _aware("since", self.since))
        if self.until is not None:
            found.append(columns.created_at < _aware("until", self.until))
        return found


def find(connection: Connection, filters: Filters, *, limit: int = 50, after: str | None = None) -> Page:
    """Return one page of decisions, newest first, with their reasons.

    Where texts are encrypted no index knows their words: `filters.text` is then looked for in the texts themselves, in the
    newest `guardrail.audit.scan.SCANNED` decisions that match the other filters. A page may then hold few decisions, or
    none, and still have a `next`.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise ConfigurationError(f"limit is {limit}, expected 1 to {MAX_PAGE}")
    if filters.text is not None and seals_of(connection.dialect) is not None:
        return _scanned(connection, filters, limit, after)
    rows = connection.execute(page_query(connection, filters, limit=limit, after=after)).mappings().all()
    shown = rows[:limit]
    why = reasons_of(connection, [row["id"] for row in shown])
    items = tuple(stored(row, why.get(row["id"], ())) for row in shown)
    return Page(items, _cursor(shown[-1]) if len(rows) > limit else None)


def _scanned(connection: Connection, filters: Filters, limit: int, after: str | None) -> Page:
    query = page_query(connection, replace(filters, text=None), limit=scan.SCANNED, after=after)
    found, last = scan.with_words(connection, query, search.terms(filters.text or ""), limit)
    return Page(tuple(read_many(connection, found)), None if last is None else _cursor(last))


def find_ids(connection: Connection, beginning: str, limit: int) -> list[str]:
    """Return the first ids that begin with `beginning`."""
    if not beginning:
        return []
    mine = decisions.c.id.startswith(identifier(beginning), autoescape=True)
    return [unescape(key) for key in connection.scalars(select(decisions.c.id).where(mine).order_by("id").limit(limit))]


def page_query(connection: Connection, filters: Filters, *, limit: int, after: str | None = None) -> Select[Any]:
    """Return the statement of a page: one row more than `limit`, which tells whether another page follows."""
    query = select(decisions).where(*filters.conditions(connection))
    order: _Order = (decisions.c.created_at, decisions.c.id)
    if filters.rule is not None:
        query, order = _by_rule(query, filters, filters.rule)
    if after is not None:
        query = query.where(*_before(order, after))
    return query.order_by(*(column.desc() for column in order)).limit(limit + 1)


_Order = tuple[ColumnElement[datetime], ColumnElement[str]]


def _by_rule(query: Select[Any], filters: Filters, rule: str) -> tuple[Select[Any], _Order]:
    """Let a query find only decisions to which a rule objected; also return what it must be ordered by.

    The reasons of a rule stand in an index in the order of a page, so that the newest are found first, however many or
    few there are. Where another filter leaves only a handful of decisions, each of these is asked instead.
    """
    named = reasons.c.rule == identifier(rule)
    if filters.request_id is not None or filters.conversation is not None or filters.subject is not None:
        found = query.where(exists().where(reasons.c.decision_id == decisions.c.id, named))
        return found, (decisions.c.created_at, decisions.c.id)
    earlier = reasons.alias()  # one that acted and could also not be judged in part gives two reasons
    again = exists().where(
        earlier.c.decision_id == reasons.c.decision_id,
        earlier.c.position < reasons.c.position,
        earlier.c.rule == identifier(rule),
    )
    found = query.join(reasons, reasons.c.decision_id == decisions.c.id).where(named, ~again)
    # What the index holds of the decision is asked of the index: the row need not be fetched to be left out.
    return found.where(*filters.placed(reasons.c)), (reasons.c.created_at, reasons.c.decision_id)


def _before(order: _Order, cursor: str) -> tuple[ColumnElement[bool], ...]:
    created_at, key = _parse_cursor(cursor)
    moment, name = order
    # The first condition is implied by the second; it is what lets the index find where to start.
    return moment <= created_at, or_(moment < created_at, and_(moment == created_at, name < key))


def _member(kind: type[Action | State | Stage], value: str) -> str:
    try:
        return kind(value).value
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise ConfigurationError(f"{kind.__name__.lower()} {value!r} is not one of {known}") from None


def _number(name: str, value: float) -> float:
    if value != value:
        raise ConfigurationError(f"{name} is not a number")
    return value


def _aware(name: str, value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ConfigurationError(f"{name} has no time zone; pass an aware datetime, for example with tzinfo=UTC")
    return value


def _cursor(row: Row) -> str:
    created_at: datetime = row["created_at"]
    return f"{created_at.astimezone(UTC).isoformat(timespec='microseconds')}~{row['id']}"


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    moment, separator, key = cursor.partition("~")
    try:
        created_at: datetime | None = datetime.fromisoformat(moment)
    except ValueError:
        created_at = None
    if created_at is None or created_at.tzinfo is None or not separator or not key:
        raise ConfigurationError(f"after is {cursor[:100]!r}, expected the `next` of the page before")
    return created_at, identifier(key)
