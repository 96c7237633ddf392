"""Verify the chain of events, and that reviews, labels, appeals and holds are what their events say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, and_, select

from guardrail.audit import chain
from guardrail.audit.escaping import unescape
from guardrail.audit.events import TEXTS, plain
from guardrail.audit.sealing import Locked
from guardrail.audit.tables import appeals, decisions, event_heads, events, holds, labels, reviews
from guardrail.audit.verify_types import ChainReport, Problem, gap

__all__ = ["Erased", "verify_events"]

_SLICE = 1000
_ROWS: Mapping[str, Table] = {"reviews": reviews, "labels": labels, "appeals": appeals, "holds": holds}
_WRONG_KIND = (TypeError, ValueError, AttributeError, KeyError)


@dataclass(slots=True)
class Erased:
    """What the events of a community say was erased on purpose.

    Attributes:
        decisions: (stored) ids whose texts were erased.
        before: (up to this place of the chain, before this time): texts erased by age.
        start: place and hash of the last decision that was deleted by age; the chain goes on after it.
    """

    decisions: set[str] = field(default_factory=set)
    before: list[tuple[int, datetime]] = field(default_factory=list)
    start: tuple[int, str] = (0, chain.GENESIS)

    def covers(self, decision: Mapping[Any, Any]) -> bool:
        """Whether a decision's texts were erased by an event."""
        if decision["id"] in self.decisions:
            return True
        return any(decision["sequence"] <= up_to and decision["created_at"] < moment for up_to, moment in self.before)


@dataclass(slots=True)
class _Expected:
    """What the events say of one row: its columns, and the salts of the digests among them."""

    columns: dict[str, Any] = field(default_factory=dict)
    salts: dict[str, str] = field(default_factory=dict)  # column -> salt; '' once erased
    where: tuple[str, int, str] = ("", 0, "")  # community, sequence, id of the last event


def verify_events(
    connection: Connection, wanted: Sequence[str] | None, sealed: Counter[str]
) -> tuple[list[ChainReport], list[Problem], dict[str, Erased]]:
    """Verify the event chains of some communities, or of all and with them all rows that events speak of.

    Args:
        wanted: stored names of communities; None: all.
        sealed: counts the texts, by the id of a key that is not configured, that could not be compared with their digests.
    """
    heads = {row.community: row for row in connection.execute(select(event_heads))}
    known = set(heads) | set(connection.scalars(select(events.c.community).distinct()))
    reports, problems = [], []
    erased: dict[str, Erased] = defaultdict(Erased)
    expected: dict[tuple[str, str], _Expected] = defaultdict(_Expected)
    for name in sorted(known) if wanted is None else wanted:
        if name not in known:
            continue
        report, found = _chain(connection, name, heads.get(name), erased[name], expected)
        reports.append(report)
        problems += found
    problems += _rows(connection, expected, erased, sealed, whole=wanted is None)
    problems += _misplaced(connection, wanted)
    return reports, problems, erased


def _chain(
    connection: Connection,
    community: str,
    head: Any,
    erased: Erased,
    expected: dict[tuple[str, str], _Expected],
) -> tuple[ChainReport, list[Problem]]:
    name = unescape(community)
    problems: list[Problem] = []
    end, end_hash = (0, chain.GENESIS) if head is None else (head.sequence, head.hash)
    count, last, previous = 0, 0, chain.GENESIS
    for row in _slices(connection, community):
        count += 1
        try:
            problems += _check(row, last, previous, end, name)
            last, previous = row["sequence"], row["hash"]
            _note(row, erased, expected)
        except _WRONG_KIND:
            problems.append(Problem("altered", name, None, str(row["id"]), "this event holds a value of a wrong kind"))
    if last < end:
        problems.append(Problem("removed", name, last + 1, None, gap(last + 1, end, "event")))
    elif last == end and previous != end_hash:
        problems.append(Problem("altered", name, end, None, "the end of the events is not the hash of the last one"))
    return ChainReport(name, count, end, end_hash, "events"), problems


def _check(row: Mapping[Any, Any], last: int, previous: str, end: int, name: str) -> Iterator[Problem]:
    sequence, key = row["sequence"], row["id"]
    if sequence <= last:
        yield Problem("inserted", name, sequence, key, f"place {sequence} of the events is taken twice")
    elif sequence > last + 1:
        yield Problem("removed", name, last + 1, None, gap(last + 1, sequence - 1, "event"))
    elif row["previous_hash"] != previous:
        yield Problem("altered", name, sequence, key, "this event does not follow from the one before it")
    if row["hash"] != chain.link(row["previous_hash"], sequence, chain.event_content(row)):
        yield Problem("altered", name, sequence, key, "this event is not the one that was recorded")
    if sequence > end:
        yield Problem("inserted", name, sequence, key, "this event stands beyond the end of its chain")


def _note(row: Mapping[Any, Any], erased: Erased, expected: dict[tuple[str, str], _Expected]) -> None:
    details = row["details"]
    if row["kind"] == "erasure":
        erased.decisions.update(details["decisions"])
    elif row["kind"] == "retention" and "texts_before" in details:
        erased.before.append((details["up_to"], datetime.fromisoformat(details["texts_before"])))
    elif row["kind"] == "retention":
        erased.start = (details["decisions_up_to"], details["hash"])
    if "table" in details:
        one = expected[details["table"], row["subject"]]
        one.columns |= details["row"]
        one.salts |= dict.fromkeys(details["row"], row["salt"])
        one.where = (unescape(row["community"]), row["sequence"], row["id"])


def _slices(connection: Connection, community: str) -> Iterator[Mapping[Any, Any]]:
    after = None
    while True:
        query = select(events).where(events.c.community == community)
        if after is not None:
            sequence, key = after
            same = (events.c.sequence == sequence) & (events.c.id > key)
            query = query.where(events.c.sequence >= sequence, (events.c.sequence > sequence) | same)
        rows = connection.execute(query.order_by(events.c.sequence, events.c.id).limit(_SLICE)).mappings().all()
        if not rows:
            return
        yield from rows
        after = rows[-1]["sequence"], rows[-1]["id"]


def _rows(
    connection: Connection,
    expected: dict[tuple[str, str], _Expected],
    erased: Mapping[str, Erased],
    sealed: Counter[str],
    whole: bool,
) -> Iterator[Problem]:
    """Compare the rows with what their events say. Without all communities' events, unknown rows say nothing."""
    seen = set()
    for name, table in _ROWS.items():
        key = "decision_id" if table is holds else "id"
        for row in connection.execution_options(yield_per=_SLICE).execute(select(table)).mappings():
            one = expected.get((name, row[key]))
            seen.add((name, row[key]))
            if one is None:
                # A hold begins with its decision, whose state is in the chain; only its verdict is an event.
                if whole and (table is not holds or row["status"] != "held"):
                    yield Problem("inserted", None, None, row[key], f"no event speaks of this row of {name}")
            else:
                yield from _compare(name, dict(row), one, row[key], sealed)
    for name, key in sorted(set(expected) - seen):
        community, sequence, event_id = expected[name, key].where
        if _retired(connection, event_id, erased):
            continue
        yield Problem("removed", community, sequence, key, f"a row of {name} is gone")


def _misplaced(connection: Connection, wanted: Sequence[str] | None) -> Iterator[Problem]:
    """Reviews that repeat something else than their decision says: the pages of a reviewer would miss them."""
    same = and_(reviews.c.community == decisions.c.community, reviews.c.decided_at == decisions.c.created_at)
    query = select(decisions.c.community, decisions.c.sequence, reviews.c.id)
    query = query.join(reviews, reviews.c.decision_id == decisions.c.id).where(~same)
    if wanted is not None:
        query = query.where(decisions.c.community.in_(wanted))
    for community, sequence, key in connection.execute(query):
        detail = "this row of reviews names another community or time of its decision, by which it is listed"
        yield Problem("altered", unescape(community), sequence, key, detail)


def _retired(connection: Connection, event_id: str, erased: Mapping[str, Erased]) -> bool:
    """Whether the decision that an event speaks of was deleted by age, and its reviews, labels and appeals with it."""
    row = connection.execute(select(events.c.community, events.c.decision_id).where(events.c.id == event_id)).one()
    if row.community not in erased or erased[row.community].start[0] == 0:
        return False
    return connection.scalar(select(decisions.c.id).where(decisions.c.id == row.decision_id)) is None


def _compare(name: str, row: dict[str, Any], one: _Expected, key: str, sealed: Counter[str]) -> Iterator[Problem]:
    community, sequence, _ = one.where
    for column, recorded in one.columns.items():
        value = row[column]
        if column in TEXTS[name] and isinstance(recorded, dict):
            salt = one.salts[column]
            missing = [text.key for text in (value, salt) if isinstance(text, Locked) and not text.damaged][:1]
            sealed.update(missing)
            good = bool(missing) or _same_text(value, recorded, salt)
        else:
            good = plain(value) == recorded
        if not good:
            detail = f"the {column} of this row of {name} is not the one that was recorded"
            yield Problem("altered", community, sequence, key, detail)


def _same_text(value: str | None, recorded: dict[str, Any], salt: str) -> bool:
    if not salt:  # erased
        return not value
    if isinstance(salt, Locked):  # damaged
        return False
    return value is not None and chain.digest(salt, value) == f"sha256:{recorded['sha256']}"
