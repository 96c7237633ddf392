"""Reading the record: one decision whole, or pages of those that match some filters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, or_, select

from guardrail.audit import search
from guardrail.audit.escaping import identifier, unescape, unescape_json
from guardrail.audit.tables import decisions, reasons, reviews, rewrites, scores
from guardrail.errors import ConfigurationError
from guardrail.types import Action, Reason, Span, Stage, State

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
class StoredCandidate:
    """One rewrite as recorded: the repaired draft (position 0), or a candidate for it or for a flagged part of it.

    `edits` are the (span in the source, replacement) pairs that turned the source into the repaired draft.
    """

    position: int
    method: str
    chosen: bool
    passes: bool
    text: str | None  # None where texts are not stored
    text_length: int
    text_digest: str
    risk_before: float | None
    risk_after: float | None
    similarity: float | None
    fluency: float | None
    utility: float | None
    seed: int | None
    scores_after: Mapping[str, float | None]
    edits: tuple[tuple[Span, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """One decision as recorded. `scores`, `rewrite` and `candidates` are filled by `get`, not in a page."""

    id: str
    community: str
    sequence: int  # place in the community's hash chain, from 1
    created_at: datetime
    request_id: str
    conversation: str | None
    stage: Stage
    state: State
    action: Action
    risk: float
    policy: str
    revision: str
    shadow: bool
    withheld: bool
    altered: bool
    text_stored: bool
    source_text: str | None  # None where texts are not stored
    delivered_text: str | None
    source_length: int
    delivered_length: int
    salt: str
    source_digest: str
    delivered_digest: str
    rules: Mapping[str, float | None]
    failures: Mapping[str, str]
    models: Mapping[str, str]
    timings_ms: Mapping[str, float | None]
    note: str
    previous_hash: str
    hash: str
    content_version: int
    subject: str | None
    subject_digest: str | None
    masked: (
        Mapping[str, Sequence[Sequence[Any]]] | None
    )  # what was masked before the write: field -> [kind, start, end]
    embedding_digest: str | None
    erased_at: datetime | None
    reasons: tuple[Reason, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    rewrite: StoredCandidate | None = None  # the repaired draft
    candidates: tuple[StoredCandidate, ...] = ()  # what was proposed for it; `scores` are those before


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
        """Return the SQL conditions in the dialect of `connection`.

        Raises:
            ConfigurationError: a value that no decision can have, which would look like an empty record.
        """
        table = decisions.c
        found: list[ColumnElement[bool]] = []
        for column, value in (
            (table.community, self.community),
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
        if self.since is not None:
            found.append(table.created_at >= _aware("since", self.since))
        if self.until is not None:
            found.append(table.created_at < _aware("until", self.until))
        if self.rule is not None:
            mine = reasons.c.decision_id == table.id
            found.append(exists().where(mine, reasons.c.rule == identifier(self.rule)))
        if self.text is not None:
            found.append(search.matches(connection, self.text))
        if self.reviewer is not None:
            theirs = reviews.c.decision_id == table.id
            found.append(exists().where(theirs, reviews.c.reviewer == identifier(self.reviewer)))
        return found


def read(connection: Connection, key: str) -> StoredDecision | None:
    """Return one decision with all that belongs to it."""
    row = connection.execute(select(decisions).where(decisions.c.id == key)).mappings().first()
    if row is None:
        return None
    kept = connection.execute(select(scores).where(scores.c.decision_id == key).order_by(scores.c.classifier))
    tried = connection.execute(select(rewrites).where(rewrites.c.decision_id == key).order_by(rewrites.c.position))
    return _decision(
        row,
        _reasons(connection, [key]).get(key, ()),
        {unescape(score.classifier): score.value for score in kept},
        [_candidate(candidate) for candidate in tried.mappings()],
    )


def read_many(connection: Connection, ids: Sequence[str]) -> list[StoredDecision]:
    """Return decisions whole, in the order of their ids; those that do not exist are left out."""
    keys = [identifier(key) for key in ids]
    if not keys:
        return []
    rows = {row["id"]: row for row in connection.execute(select(decisions).where(decisions.c.id.in_(keys))).mappings()}
    scored: dict[str, dict[str, float | None]] = defaultdict(dict)
    kept = select(scores).where(scores.c.decision_id.in_(keys)).order_by(scores.c.decision_id, scores.c.classifier)
    for score in connection.execute(kept):
        scored[score.decision_id][unescape(score.classifier)] = score.value
    tried: dict[str, list[StoredCandidate]] = defaultdict(list)
    proposed = (
        select(rewrites).where(rewrites.c.decision_id.in_(keys)).order_by(rewrites.c.decision_id, rewrites.c.position)
    )
    for candidate in connection.execute(proposed).mappings():
        tried[candidate["decision_id"]].append(_candidate(candidate))
    why = _reasons(connection, keys)
    return [_decision(rows[key], why.get(key, ()), scored[key], tried[key]) for key in keys if key in rows]


def find(connection: Connection, filters: Filters, *, limit: int = 50, after: str | None = None) -> Page:
    """Return one page of decisions, newest first, with their reasons."""
    if not 1 <= limit <= MAX_PAGE:
        raise ConfigurationError(f"limit is {limit}, expected 1 to {MAX_PAGE}")
    rows = connection.execute(page_query(connection, filters, limit=limit, after=after)).mappings().all()
    shown = rows[:limit]
    why = _reasons(connection, [row["id"] for row in shown])
    items = tuple(_decision(row, why.get(row["id"], ())) for row in shown)
    return Page(items, _cursor(shown[-1]) if len(rows) > limit else None)


def find_ids(connection: Connection, beginning: str, limit: int) -> list[str]:
    """Return the first ids that begin with `beginning`."""
    if not beginning:
        return []
    mine = decisions.c.id.startswith(identifier(beginning), autoescape=True)
    return [unescape(key) for key in connection.scalars(select(decisions.c.id).where(mine).order_by("id").limit(limit))]


def page_query(connection: Connection, filters: Filters, *, limit: int, after: str | None = None) -> Select[Any]:
    """Return the statement of a page: one row more than `limit`, which tells whether another page follows."""
    query = select(decisions).where(*filters.conditions(connection))
    if after is not None:
        created_at, key = _parse_cursor(after)
        earlier = and_(decisions.c.created_at == created_at, decisions.c.id < key)
        # The first condition is implied by the second; it is what lets the index find where to start.
        query = query.where(decisions.c.created_at <= created_at, or_(decisions.c.created_at < created_at, earlier))
    return query.order_by(decisions.c.created_at.desc(), decisions.c.id.desc()).limit(limit + 1)


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


def _reasons(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[Reason, ...]]:
    if not ids:
        return {}
    found: dict[str, list[Reason]] = defaultdict(list)
    query = select(reasons).where(reasons.c.decision_id.in_(ids)).order_by(reasons.c.decision_id, reasons.c.position)
    for row in connection.execute(query).mappings():
        found[row["decision_id"]].append(_reason(row))
    return {key: tuple(why) for key, why in found.items()}


def _reason(row: Row) -> Reason:
    return Reason(
        rule=unescape(row["rule"]),
        stage=Stage(row["stage"]),
        action=Action(row["action"]),
        risk=_known(row["risk"]),
        threshold=_known(row["threshold"]),
        contributions={unescape(name): _known(value) for name, value in row["contributions"].items()},
        spans=tuple((start, end) for start, end in row["spans"]),
        description=unescape(row["description"]),
        error=unescape(row["error"]),
    )


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _decision(
    row: Row,
    why: tuple[Reason, ...],
    score: Mapping[str, float | None] | None = None,
    rewritten: Sequence[StoredCandidate] = (),
) -> StoredDecision:
    source = row["source_text"]
    delivered = row["delivered_text"] if row["altered"] else source
    values = dict(row) | {
        "conversation": None if row["conversation"] is None else unescape(row["conversation"]),
        "subject": None if row["subject"] is None else unescape(row["subject"]),
        "stage": Stage(row["stage"]),
        "state": State(row["state"]),
        "action": Action(row["action"]),
        "source_text": None if source is None else unescape(source),
        "delivered_text": None if delivered is None else unescape(delivered),
        "reasons": why,
        "scores": score or {},
        "rewrite": next((one for one in rewritten if one.position == 0), None),
        "candidates": tuple(one for one in rewritten if one.position > 0),
    }
    for name in ("id", "community", "request_id", "policy", "revision", "note"):
        values[name] = unescape(values[name])
    for name in ("rules", "failures", "models", "timings_ms"):
        values[name] = unescape_json(values[name])
    return StoredDecision(**values)


def _candidate(row: Row) -> StoredCandidate:
    text = None if row["text"] is None else unescape(row["text"])
    values = {name: row[name] for name in row if name != "decision_id"} | {
        "method": unescape(row["method"]),
        "text": text,
        "seed": None if row["seed"] is None else int(row["seed"]),
        "scores_after": unescape_json(row["scores_after"]),
        "edits": _edits(row["edits"] or (), text),
    }
    return StoredCandidate(**values)


def _edits(stored: Sequence[Sequence[int]], text: str | None) -> tuple[tuple[Span, str | None], ...]:
    """Find each replacement in the rewritten text: what stands between the edits was not changed."""
    found: list[tuple[Span, str | None]] = []
    shift = 0
    for start, end, length in stored:
        replacement = None if text is None else text[start + shift : start + shift + length]
        found.append(((start, end), replacement))
        shift += length - (end - start)
    return tuple(found)
