"""Recompute the hash chains and say which rows were altered, removed or inserted.

What a chain alone cannot show: that its newest rows were removed *and* its head was set back, or that everything from
some row on was rewritten with fresh hashes. Keep the head that `audit verify --json` prints somewhere else to see that.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Boolean, ColumnElement, Connection, Table, Text, exists, func, select, type_coerce

from guardrail.audit import chain
from guardrail.audit.escaping import unescape
from guardrail.audit.rows import REPEATED, embedding_digest
from guardrail.audit.sealing import Locked
from guardrail.audit.tables import (
    UtcDateTime,
    chain_heads,
    decisions,
    embeddings,
    policy_revisions,
    reasons,
    rewrites,
    scores,
)
from guardrail.audit.verify_events import Erased, verify_events
from guardrail.audit.verify_types import ChainReport, Problem, Verification, gap

__all__ = ["ChainReport", "Problem", "Verification", "verify"]

_SLICE = 1000

_JSON_COLUMNS = {
    table.name: [column.name for column in table.columns if isinstance(column.type, JSON)]
    for table in (decisions, reasons, rewrites, embeddings)
}

_BOOLEANS = {
    table.name: [column.name for column in table.columns if isinstance(column.type, Boolean)]
    for table in (decisions, reasons, rewrites, embeddings)
}
_CONVERTED = (JSON, UtcDateTime, Boolean)
_TRUTH = {0: False, 1: True}

Row = Mapping[Any, Any]
_Scores = dict[str, dict[str, float | None]]
_Parts = dict[str, list[Row]]

_WRONG_KIND = (TypeError, ValueError, AttributeError, KeyError)


def verify(connection: Connection, community: str | None = None) -> Verification:
    """Verify the chains of one community, or of all with the policy revisions and stray rows besides."""
    sealed: Counter[str] = Counter()
    after, later, erased = verify_events(connection, None if community is None else [community], sealed)
    heads = {row.community: row for row in connection.execute(select(chain_heads))}
    known = set(heads) | set(connection.scalars(select(decisions.c.community).distinct()))
    wanted = sorted(known) if community is None else [community]
    reports, problems = [], []
    for name in wanted:
        report, found = _verify_chain(connection, name, heads.get(name), erased.get(name) or Erased(), sealed)
        reports.append(report)
        problems += found
    if community is None:
        problems += _verify_revisions(connection)
        problems += _find_strays(connection)
    return Verification(tuple(reports), (*problems, *later), tuple(after), dict(sealed))


def _verify_chain(
    connection: Connection, community: str, head: Any, erased: Erased, sealed: Counter[str]
) -> tuple[ChainReport, list[Problem]]:
    name = unescape(community)
    problems: list[Problem] = []
    end, end_hash = (0, chain.GENESIS) if head is None else (head.sequence, head.hash)
    count, (last, previous) = 0, erased.start
    for decision, body in _contents(connection, community):
        count += 1
        sealed.update(_missing_key(decision))
        try:
            problems += [*_check_row(decision, body, last, previous, name, erased), *_check_end(decision, end)]
        except _WRONG_KIND:  # SQLite keeps any kind of value in any column
            problems.append(_problem("altered", decision, "it holds a value of a kind that was never recorded"))
        else:
            last, previous = decision["sequence"], decision["hash"]
    if last < end:
        problems.append(Problem("removed", name, last + 1, None, gap(last + 1, end)))
    elif last == end and previous != end_hash:
        problems.append(Problem("altered", name, end, None, "the end of the chain is not the hash of its last row"))
    return ChainReport(name, count, end, end_hash), problems


def _check_row(decision: Row, body: bytes, last: int, previous: str, name: str, erased: Erased) -> Iterator[Problem]:
    sequence = decision["sequence"]
    if sequence <= last:
        yield _problem("inserted", decision, f"place {sequence} of the chain is taken twice or lies before its start")
    elif sequence > last + 1:
        yield Problem("removed", name, last + 1, None, gap(last + 1, sequence - 1))
    elif decision["previous_hash"] != previous:
        yield _problem("altered", decision, "it does not follow from the row before it: one of the two was replaced")
    if not decision["hash"].startswith("sha256:"):
        yield _problem("altered", decision, f"its hash names an unknown algorithm: {decision['hash'][:20]!r}")
    elif decision["hash"] != chain.link(decision["previous_hash"], sequence, body):
        yield _problem("altered", decision, "its fields, scores, reasons or rewrites are not those that were recorded")
    elif any(reason[name] != decision[column] for reason in decision["reasons"] for name, column in REPEATED.items()):
        yield _problem("altered", decision, "a reason names another community, time or outcome, by which it is listed")
    if _missing_key(decision):
        pass  # the digests cannot be compared
    elif decision["salt"] or not erased.covers(decision):
        for column, problem in (*_check_texts(decision), *_check_extras(decision)):
            yield _problem("altered", decision, f"its {column} {problem}")
    elif any(text is not None for _, text, _ in _texts(decision)):
        yield _problem("altered", decision, "it was erased, but holds a text")
    if (decision["erased_at"] is None) != bool(decision["salt"]):
        yield _problem("altered", decision, "it says that it was erased and keeps its salt, or the other way round")


def _missing_key(decision: Row) -> list[str]:
    """The id of the key that it would take to compare the texts with their digests, if that is not configured."""
    stored = [decision["salt"], *(text for _, text, _ in _texts(decision))]
    return [one.key for one in stored if isinstance(one, Locked) and not one.damaged][:1]


def _check_end(decision: Row, end: int) -> Iterator[Problem]:
    if decision["sequence"] > end:
        yield _problem("inserted", decision, "it stands beyond the end of its chain")


def _check_texts(decision: Row) -> Iterator[tuple[str, str]]:
    if not decision["text_stored"]:
        return
    if not decision["altered"] and decision["delivered_text"] is not None:
        yield "delivered text", "was added"
    for what, text, digest in _texts(decision):
        if text is None:
            yield what, "is missing"
        elif chain.digest(decision["salt"], text) != digest:
            yield what, "is not the one that was recorded"


def _texts(decision: Row) -> Iterator[tuple[str, str | None, str]]:
    yield "source text", decision["source_text"], decision["source_digest"]
    if decision["altered"]:
        yield "delivered text", decision["delivered_text"], decision["delivered_digest"]
    for rewrite in decision["rewrites"]:
        yield f"rewrite {rewrite['position']}", rewrite["text"], rewrite["text_digest"]


def _check_extras(decision: Row) -> Iterator[tuple[str, str]]:
    """The subject and the embedding: kept apart from the hash, like texts, so that they can be erased."""
    subject, salt = decision["subject"], decision["salt"]
    digest = None if subject is None else chain.digest(salt, subject)
    if digest != decision["subject_digest"]:
        yield "subject", "is not the one that was recorded"
    embedding = decision["embedding"]
    digest = None if embedding is None else embedding_digest(salt, embedding)
    if digest != decision["embedding_digest"]:
        yield "embedding", "is missing" if embedding is None else "is not the one that was recorded"


def _contents(connection: Connection, community: str) -> Iterator[tuple[Row, bytes]]:
    """Yield every decision of a chain in order, with the content that its hash must cover."""
    after: tuple[int, str] | None = None
    while True:
        rows = _slice(connection, community, after)
        if not rows:
            return
        ids = [row["id"] for row in rows]
        score = _scores(connection, ids)
        reason, rewrite = _parts(connection, reasons, ids), _parts(connection, rewrites, ids)
        vectors = _parts(connection, embeddings, [row["id"] for row in rows if row["embedding_digest"] is not None])
        for row in rows:
            key = row["id"]
            parts = {"reasons": reason.get(key, ()), "rewrites": rewrite.get(key, ())}
            embedding = next(iter(vectors.get(key, ())), None)
            yield {**row, **parts, "embedding": embedding}, _content(row, score, reason, rewrite)
        after = rows[-1]["sequence"], rows[-1]["id"]


def _content(row: Row, score: _Scores, reason: _Parts, rewrite: _Parts) -> bytes:
    key = row["id"]
    try:
        return chain.content(row, score.get(key, {}), reason.get(key, ()), rewrite.get(key, ()))
    except _WRONG_KIND:
        return b""  # no recorded decision hashes to this


def _slice(connection: Connection, community: str, after: tuple[int, str] | None) -> Sequence[Row]:
    # Ordered by (sequence, id): without the unique constraint, which a forger may drop, a place can be taken twice.
    query = select(*_columns(connection, decisions)).where(decisions.c.community == community)
    if after is not None:
        sequence, key = after
        same = (decisions.c.sequence == sequence) & (decisions.c.id > key)
        query = query.where(decisions.c.sequence >= sequence, (decisions.c.sequence > sequence) | same)
    query = query.order_by(decisions.c.sequence, decisions.c.id).limit(_SLICE)
    return [_as_hashed(connection, decisions, row) for row in connection.execute(query).mappings()]


def _scores(connection: Connection, ids: Sequence[str]) -> _Scores:
    found: _Scores = defaultdict(dict)
    query = select(scores.c.decision_id, scores.c.classifier, scores.c.value).where(scores.c.decision_id.in_(ids))
    for key, classifier, value in connection.execute(query):
        found[key][classifier] = value
    return found


def _parts(connection: Connection, table: Table, ids: Sequence[str]) -> _Parts:
    found: _Parts = defaultdict(list)
    if not ids:
        return found
    query = select(*_columns(connection, table)).where(table.c.decision_id.in_(ids)).order_by(*table.primary_key)
    for row in connection.execute(query).mappings():
        found[row["decision_id"]].append(_as_hashed(connection, table, row))
    return found


def _columns(connection: Connection, table: Table) -> list[ColumnElement[Any]]:
    """The columns of a table; on SQLite, which keeps any kind of value in any column, as they are and not converted."""
    if connection.dialect.name != "sqlite":
        return list(table.columns)
    return [
        type_coerce(column, Text).label(column.name) if isinstance(column.type, _CONVERTED) else column
        for column in table.columns
    ]


def _as_hashed(connection: Connection, table: Table, row: Row) -> Row:
    """Return the row in the form that was hashed: JSON as canonical text, which JSONB does not keep, times parsed."""
    if connection.dialect.name != "sqlite":
        found = {name: row[name] for name in _JSON_COLUMNS[table.name]}
        return {**row, **{name: chain.canonical(value) for name, value in found.items() if value is not None}}
    values: dict[str, Any] = {name: _TRUTH.get(row[name], row[name]) for name in _BOOLEANS[table.name]}
    if "created_at" in row:
        values["created_at"] = _moment(row["created_at"])
    return {**row, **values} if values else row


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except _WRONG_KIND:
        return None  # makes a content that was never hashed


def _verify_revisions(connection: Connection) -> Iterator[Problem]:
    for row in connection.execute(select(policy_revisions.c.revision, policy_revisions.c.document)):
        actual = "sha256:" + hashlib.sha256(unescape(row.document).encode()).hexdigest()
        if actual != row.revision:
            yield Problem("altered", None, None, row.revision, "the policy revision's document is not the one recorded")


def _find_strays(connection: Connection) -> Iterator[Problem]:
    for table in (scores, reasons, rewrites, embeddings):
        mine = exists().where(decisions.c.id == table.c.decision_id)
        query = select(table.c.decision_id, func.count()).where(~mine).group_by(table.c.decision_id).limit(_SLICE)
        for key, count in connection.execute(query):
            yield Problem("inserted", None, None, unescape(key), f"{count} {table.name} belong to no decision")


def _problem(kind: str, decision: Row, detail: str) -> Problem:
    return Problem(kind, unescape(decision["community"]), decision["sequence"], unescape(decision["id"]), detail)
