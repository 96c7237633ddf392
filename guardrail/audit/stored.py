"""Decisions as they are read back from the record: one whole, or several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, select

from guardrail.audit.escaping import identifier, unescape, unescape_json
from guardrail.audit.sealing import locked
from guardrail.audit.tables import decisions, reasons, rewrites, scores
from guardrail.errors import ConfigurationError
from guardrail.types import Action, Reason, Span, Stage, State

__all__ = ["StoredCandidate", "StoredDecision", "read", "read_many", "reasons_of", "stored"]

Row = Mapping[Any, Any]


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
    locked: str = ""  # why the texts cannot be read although they are stored: their key is not configured
    reasons: tuple[Reason, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    rewrite: StoredCandidate | None = None  # the repaired draft
    candidates: tuple[StoredCandidate, ...] = ()  # what was proposed for it; `scores` are those before

    def readable(self) -> Self:
        """Return this decision if its texts can be read (or are not stored).

        Raises:
            ConfigurationError: they are encrypted with a key that is not configured; the message says what to do.
        """
        if self.locked:
            raise ConfigurationError(f"the text of decision {self.id!r} cannot be read: {self.locked}")
        return self


def read(connection: Connection, key: str) -> StoredDecision | None:
    """Return one decision with all that belongs to it."""
    row = connection.execute(select(decisions).where(decisions.c.id == key)).mappings().first()
    if row is None:
        return None
    kept = connection.execute(select(scores).where(scores.c.decision_id == key).order_by(scores.c.classifier))
    tried = connection.execute(select(rewrites).where(rewrites.c.decision_id == key).order_by(rewrites.c.position))
    return stored(
        row,
        reasons_of(connection, [key]).get(key, ()),
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
    why = reasons_of(connection, keys)
    return [stored(rows[key], why.get(key, ()), scored[key], tried[key]) for key in keys if key in rows]


def reasons_of(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[Reason, ...]]:
    """Return the reasons of decisions by their (stored) ids."""
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


def stored(
    row: Row,
    why: tuple[Reason, ...],
    score: Mapping[str, float | None] | None = None,
    rewritten: Sequence[StoredCandidate] = (),
) -> StoredDecision:
    """Return the decision of a row of `decisions` with what belongs to it."""
    source = row["source_text"]
    delivered = row["delivered_text"] if row["altered"] else source
    why_locked = locked(source) or locked(delivered)
    values = dict(row) | {
        "conversation": None if row["conversation"] is None else unescape(row["conversation"]),
        "subject": None if row["subject"] is None else unescape(row["subject"]),
        "stage": Stage(row["stage"]),
        "state": State(row["state"]),
        "action": Action(row["action"]),
        "source_text": _readable(source),
        "delivered_text": _readable(delivered),
        "locked": why_locked,
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


def _readable(text: str | None) -> str | None:
    """The original of a stored text; None where there is none, or none that can be opened."""
    return None if text is None or locked(text) else unescape(text)


def _candidate(row: Row) -> StoredCandidate:
    text = _readable(row["text"])
    values = {name: row[name] for name in row if name != "decision_id"} | {
        "method": unescape(row["method"]),
        "text": text,
        "seed": None if row["seed"] is None else int(row["seed"]),
        "scores_after": unescape_json(row["scores_after"]),
        "edits": _edits(row["edits"] or (), text),
    }
    return StoredCandidate(**values)


def _edits(given: Sequence[Sequence[int]], text: str | None) -> tuple[tuple[Span, str | None], ...]:
    """Find each replacement in the rewritten text: what stands between the edits was not changed."""
    found: list[tuple[Span, str | None]] = []
    shift = 0
    for start, end, length in given:
        replacement = None if text is None else text[start + shift : start + shift + length]
        found.append(((start, end), replacement))
        shift += length - (end - start)
    return tuple(found)
