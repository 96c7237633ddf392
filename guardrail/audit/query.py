"""Reading the record in pages: the decisions that match some filters, newest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, exists, or_, select

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
    "cursor_of",
    "find",
    "find_ids",
    "page_query",
    "parse_cursor",
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
        """Return the SQL conditions on `decisions` in the dialect of `connection`.

        Raises:
            ConfigurationError: a value that no decision can have, which would look like an empty record.
        """
        found = [*self._placed(_DECISIONS), *self._own(connection)]
        if self.rule is not None:
            found.append(_has(reasons, reasons.c.rule == identifier(self.rule)))
        if self.reviewer is not None:
            found.append(_has(reviews, reviews.c.reviewer == identifier(self.reviewer)))
        return found

    def _own(self, connection: Connection) -> Iterator[ColumnElement[bool]]:
        """What no other table repeats."""
        table = decisions.c
        for column, value in (
            (table.request_id, self.request_id),
            (table.conversation, self.conversation),
            (table.subject, self.subject),
        ):
            if value is not None:
                yield column == identifier(value)
        if self.stage is not None:
            yield table.stage == _member(Stage, self.stage)
        if self.text is not None:
            yield search.matches(connection, self.text)

    def _placed(self, place: _Place) -> Iterator[ColumnElement[bool]]:
        """What can be asked of any table that repeats columns of the decision, in the columns of that table."""
        if self.community is not None:
            yield place.community == identifier(self.community)
        if self.since is not None:
            yield place.created_at >= _aware("since", self.since)
        if self.until is not None:
            yield place.created_at < _aware("until", self.until)
        if self.action is not None:
            yield place.action == _member(Action, self.action)
        if self.state is not None:
            yield place.state == _member(State, self.state)
        if self.min_risk is not None:
            yield place.risk >= _number("min_risk", self.min_risk)
        if self.max_risk is not None:
            yield place.risk <= _number("max_risk", self.max_risk)


@dataclass(frozen=True, slots=True)
class _Place:
    """The columns by which a page is ordered and filtered, in a table that has them in one index."""

    id: ColumnElement[str]
    created_at: ColumnElement[datetime]
    community: ColumnElement[str]
    state: ColumnElement[str]
    action: ColumnElement[str]
    risk: ColumnElement[float]


_DECISIONS = _Place(*(decisions.c[name] for name in ("id", "created_at", "community", "state", "action", "risk")))
_REASONS = _Place(
    reasons.c.decision_id,
    reasons.c.created_at,
    reasons.c.community,
    reasons.c.decision_state,
    reasons.c.decision_action,
    reasons.c.decision_risk,
)
_REVIEWS = replace(_DECISIONS, id=reviews.c.decision_id, created_at=reviews.c.decided_at, community=reviews.c.community)


def _has(table: Table, wanted: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(table.c.decision_id == decisions.c.id, wanted)


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
    return Page(items, cursor_of(shown[-1]) if len(rows) > limit else None)


def _scanned(connection: Connection, filters: Filters, limit: int, after: str | None) -> Page:
    query = page_query(connection, replace(filters, text=None), limit=scan.SCANNED, after=after)
    found, last = scan.with_words(connection, query, search.terms(filters.text or ""), limit)
    return Page(tuple(read_many(connection, found)), None if last is None else cursor_of(last))


def find_ids(connection: Connection, beginning: str, limit: int) -> list[str]:
    """Return the first ids that begin with `beginning`."""
    if not beginning:
        return []
    mine = decisions.c.id.startswith(identifier(beginning), autoescape=True)
    return [unescape(key) for key in connection.scalars(select(decisions.c.id).where(mine).order_by("id").limit(limit))]


def page_query(connection: Connection, filters: Filters, *, limit: int, after: str | None = None) -> Select[Any]:
    """Return the statement of a page: one row more than `limit`, which tells whether another page follows.

    The reasons of a rule and the reviews of a person stand in indexes in the order of a page, with what else of the
    decision is filtered: the newest are found first, however many or few there are, and a row need not be fetched to be left
    out. Such a filter is asked of that table alone: asked of `decisions` too, the server would take both for independent and
    expect fewer matches than there are. Where another filter leaves only a handful of decisions, each of these is asked.
    """
    handful = filters.request_id is not None or filters.conversation is not None or filters.subject is not None
    if handful or (filters.rule is None and filters.reviewer is None):
        place, query = _DECISIONS, select(decisions).where(*filters.conditions(connection))
    elif filters.reviewer is not None:
        place, query = _REVIEWS, _joined(reviews, "reviewer", filters.reviewer, "id")
        query = query.where(*filters._placed(place), *filters._own(connection))
        if filters.rule is not None:
            query = query.where(_has(reasons, reasons.c.rule == identifier(filters.rule)))
    else:
        place, query = _REASONS, _joined(reasons, "rule", filters.rule or "", "position")
        query = query.where(*filters._placed(place), *filters._own(connection))
    if after is not None:
        query = query.where(*_before(place, after))
    return query.order_by(place.created_at.desc(), place.id.desc()).limit(limit + 1)


def _joined(table: Table, column: str, value: str, number: str) -> Select[Any]:
    """Decisions with a row of `table` in which `column` is `value`; of several such rows the one with the least `number`."""
    mine, earlier = table.c[column] == identifier(value), table.alias()
    again = exists().where(
        earlier.c.decision_id == table.c.decision_id,
        earlier.c[number] < table.c[number],
        earlier.c[column] == identifier(value),
    )
    return select(decisions).join(table, table.c.decision_id == decisions.c.id).where(mine, ~again)


def _before(place: _Place, cursor: str) -> tuple[ColumnElement[bool], ...]:
    created_at, key = parse_cursor(cursor)
    moment, name = place.created_at, place.id
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


def cursor_of(row: Row) -> str:
    """Return what names the place of a row (`created_at`, `id`) in a list that is ordered by both, newest first."""
    created_at: datetime = row["created_at"]
    return f"{created_at.astimezone(UTC).isoformat(timespec='microseconds')}~{row['id']}"


def parse_cursor(cursor: str) -> tuple[datetime, str]:
    """Return time and id of the row that `cursor_of` named.

    Raises:
        ConfigurationError: it is no such place.
    """
    moment, separator, key = cursor.partition("~")
    try:
        created_at: datetime | None = datetime.fromisoformat(moment)
    except ValueError:
        created_at = None
    if created_at is None or created_at.tzinfo is None or not separator or not key:
        raise ConfigurationError(f"after is {cursor[:100]!r}, expected the `next` of the page before")
    return created_at, identifier(key)
