"""A decision as the rows that are stored of it.

Everything is brought into the form in which the database will return it (escaped text, finite numbers) *before* it is
hashed, so that a row read back hashes to the same value on SQLite and on PostgreSQL. JSON columns are made canonical
text once, for the hash and for the database alike.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from guardrail.audit import chain
from guardrail.audit.chain import canonical
from guardrail.audit.escaping import escape, identifier, name
from guardrail.audit.masking import Found, Masker, mask_decision
from guardrail.audit.sealing import Seals
from guardrail.errors import AuditUnavailable
from guardrail.randomness import random_bytes
from guardrail.types import Candidate, Decision, Evidence, Reason, Rewrite, Span, State

__all__ = ["REPEATED", "DecisionRows", "Keeping", "embedding_digest", "finite", "prepare", "repeated"]

_LARGEST = 1e15
"""Beyond it JSONB returns a float as an integer, and no number that we store means anything there."""

Row = dict[str, Any]

REPEATED = {
    "community": "community",
    "created_at": "created_at",
    "decision_state": "state",
    "decision_action": "action",
    "decision_risk": "risk",
}
"""Columns of `reasons` that repeat a column of the decision, so that an index of reasons answers a page."""


@dataclass(slots=True)
class DecisionRows:
    """The rows of one decision. `sequence`, `previous_hash` and `hash` are filled in when it joins its chain."""

    decision: Row
    scores: list[Row]
    reasons: list[Row]
    rewrites: list[Row]
    content: bytes
    embeddings: list[Row] = field(default_factory=list)  # one or none
    holds: list[Row] = field(default_factory=list)  # one or none


@dataclass(frozen=True, slots=True)
class Keeping:
    """What of a decision is kept.

    Attributes:
        text: False keeps salted digests, lengths and spans, but no text.
        embeddings: whether the vectors that were judged are kept; never those of a text in which something was masked.
        masker: blanks personal data out of every text first.
        seals: encrypts texts, salts and vectors; None: they are stored as they are.
    """

    text: bool = True
    embeddings: bool = False
    masker: Masker = field(default_factory=Masker)
    seals: Seals | None = None


_EVERYTHING = Keeping()


def prepare(
    decision: Decision,
    *,
    community: str,
    conversation: str | None = None,
    subject: str | None = None,
    keeping: Keeping = _EVERYTHING,
) -> DecisionRows:
    """Return the rows of `decision`.

    Args:
        community: whose chain it joins.
        conversation: ties calls together.
        subject: whose text it is.
        keeping: what of it is kept.

    Raises:
        AuditUnavailable: the decision makes no sense (its risk is not a number); it is not recorded.
    """
    salt = random_bytes(16).hex()
    key = identifier(decision.id)
    masked: dict[str, Found] = {}
    if keeping.masker:
        decision, masked = mask_decision(decision, keeping.masker)
    row = _decision_row(decision, salt, keeping.text)
    row["id"] = key
    row["community"] = identifier(community)
    row["conversation"] = None if conversation is None else identifier(conversation)
    row["subject"] = None if subject is None else identifier(subject)
    row["subject_digest"] = None if subject is None else chain.digest(salt, row["subject"])
    row["masked"] = canonical(masked) if masked else None
    kept = decision.evidence if keeping.embeddings and not masked else None
    embedding = None if kept is None else _embedding_row(key, kept)
    row["embedding_digest"] = None if embedding is None else embedding_digest(salt, embedding)
    values = _numbers(decision.scores)
    scores = [{"decision_id": key, "classifier": who, "value": value} for who, value in values.items()]
    reasons = [_reason_row(row, position, reason) for position, reason in enumerate(decision.reasons)]
    rewrites = _rewrite_rows(key, decision, salt, keeping.text)
    content = chain.content(row, values, reasons, rewrites)
    holds = [_hold_row(row)] if decision.state is State.ESCALATED and decision.text is None else []
    rows = DecisionRows(row, scores, reasons, rewrites, content, [] if embedding is None else [embedding], holds)
    if keeping.seals is not None:
        _seal(rows, keeping.seals)
    return rows


def repeated(decision: Row) -> Row:
    """Return what the rows of `reasons` repeat of their decision."""
    return {name: decision[column] for name, column in REPEATED.items()}


def _seal(rows: DecisionRows, seals: Seals) -> None:
    """Seal here what the database would get sealed anyway: the spool must not hold it in the clear either."""
    decision = rows.decision
    for key in ("source_text", "delivered_text", "salt"):
        if decision[key] is not None:
            decision[key] = seals.close(decision[key])
    for rewrite in rows.rewrites:
        if rewrite["text"] is not None:
            rewrite["text"] = seals.close(rewrite["text"])
    for embedding in rows.embeddings:
        embedding["vectors"] = seals.close_bytes(embedding["vectors"])


def embedding_digest(salt: str, row: Row) -> str:
    """Return the salted digest of a row of `embeddings` as it is written: `others` as canonical text or None."""
    digest = hashlib.sha256(bytes.fromhex(salt))
    digest.update(f"{row['encoder']}\n{row['dim']}\n{row['others'] or 'null'}\n".encode())
    digest.update(row["layout"])
    digest.update(row["vectors"])
    return "sha256:" + digest.hexdigest()


def _embedding_row(key: str, kept: Evidence) -> Row:
    others = {name(who): [finite(value) for value in values] for who, values in kept.others.items()}
    return {
        "decision_id": key,
        "encoder": kept.encoder,
        "dim": kept.dim,
        "vectors": kept.vectors,
        "layout": kept.layout,
        "others": canonical(others) if others else None,
    }


def _hold_row(row: Row) -> Row:
    return {
        "decision_id": row["id"],
        "community": row["community"],
        "status": "held",
        "created_at": row["created_at"],
        "expires_at": None,
        "settled_at": None,
        "settled_by": None,
        "text": None,
    }


def _decision_row(decision: Decision, salt: str, store_text: bool) -> Row:
    if not math.isfinite(decision.risk):
        raise AuditUnavailable(
            f"decision {decision.id!r} cannot be recorded: its risk is {decision.risk}, expected a number from 0 to 1"
        )
    delivered = decision.delivered
    altered = delivered != decision.source
    source_text = escape(decision.source)
    delivered_text = escape(delivered) if altered else source_text
    source_digest = chain.digest(salt, source_text)
    return {
        "created_at": _moment(decision.created_at),
        "request_id": identifier(decision.request_id),
        "stage": decision.stage.value,
        "state": decision.state.value,
        "action": decision.action.value,
        "risk": finite(decision.risk),
        "policy": name(decision.policy),
        "revision": name(decision.revision),
        "shadow": bool(decision.shadow),
        "withheld": decision.text is None,
        "altered": altered,
        "text_stored": store_text,
        "source_text": source_text if store_text else None,
        "delivered_text": delivered_text if store_text and altered else None,
        "source_length": len(decision.source),
        "delivered_length": len(delivered),
        "salt": salt,
        "source_digest": source_digest,
        "delivered_digest": chain.digest(salt, delivered_text) if altered else source_digest,
        "rules": canonical(_numbers(decision.rules)),
        "failures": canonical(_strings(decision.failures)),
        "models": _models(tuple(decision.models.items())),
        "timings_ms": canonical(_numbers(decision.timings_ms)),
        "note": escape(decision.note),
        "content_version": chain.CONTENT_VERSION,
        "erased_at": None,
    }


def _reason_row(decision: Row, position: int, reason: Reason) -> Row:
    return {
        "decision_id": decision["id"],
        "position": position,
        "rule": name(reason.rule),
        "stage": reason.stage.value,
        "action": reason.action.value,
        "risk": finite(reason.risk),
        "threshold": finite(reason.threshold),
        "contributions": canonical(_numbers(reason.contributions)),
        "spans": canonical([[int(start), int(end)] for start, end in reason.spans]),
        "description": escape(reason.description),
        "error": escape(reason.error),
        **repeated(decision),
    }


def _rewrite_rows(key: str, decision: Decision, salt: str, store_text: bool) -> list[Row]:
    """The repaired draft at position 0, then every candidate in the order in which they were proposed.

    Where no repair passed there are only candidates, from position 1 on.
    """
    rewrite = decision.rewrite
    if rewrite is None:
        return [
            _candidate_row(key, position, candidate, decision.risk, None, salt, store_text)
            for position, candidate in enumerate(decision.tried, 1)
        ]
    repaired = Candidate(
        rewrite.text, rewrite.method, rewrite.risk_after, True, rewrite.similarity, scores=_scores_of(rewrite)
    )
    rows = [
        _candidate_row(key, position, candidate, rewrite.risk_before, rewrite.seed, salt, store_text)
        for position, candidate in enumerate((repaired, *rewrite.candidates))
    ]
    rows[0]["edits"] = canonical(_edits(rewrite.edits))
    for position in (0, *_chosen(rewrite)):
        rows[position]["chosen"] = True
    return rows


def _candidate_row(
    key: str, position: int, candidate: Candidate, risk_before: float, seed: int | None, salt: str, store_text: bool
) -> Row:
    text = escape(candidate.text)
    seed = candidate.seed if candidate.seed is not None else seed
    return {
        "decision_id": key,
        "position": position,
        "method": name(candidate.method),
        "chosen": False,
        "passes": bool(candidate.passes),
        "risk_before": finite(risk_before),
        "risk_after": finite(candidate.risk),
        "similarity": finite(candidate.similarity),
        "fluency": finite(candidate.fluency),
        "utility": finite(candidate.utility),
        "seed": None if seed is None else str(int(seed)),
        "scores_after": canonical(_numbers(candidate.scores)),
        "edits": None,
        "text": text if store_text else None,
        "text_length": len(candidate.text),
        "text_digest": chain.digest(salt, text),
    }


def _chosen(rewrite: Rewrite) -> list[int]:
    """Positions of the candidates in the repaired draft: the whole of it, or the replacement of one edit."""
    used = [rewrite.text, *(replacement for _, replacement in rewrite.edits)]
    found = []
    for position, candidate in enumerate(rewrite.candidates, start=1):
        if candidate.text in used and candidate.method in rewrite.method:
            used.remove(candidate.text)
            found.append(position)
    return found


def _scores_of(rewrite: Rewrite) -> Mapping[str, float]:
    return next((candidate.scores for candidate in rewrite.candidates if candidate.text == rewrite.text), {})


def _edits(edits: Sequence[tuple[Span, str]]) -> list[list[int]]:
    # The replacement itself is a piece of the rewritten text; its length is enough to find it there, and leaves no
    # text behind where texts are not stored or are erased.
    return [[int(start), int(end), len(replacement)] for (start, end), replacement in sorted(edits)]


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds or time.time(), UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(time.time(), UTC)


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {
        # The first branch is `finite`, in line for the usual value: this runs for every score of every text.
        name(key): value + 0.0 if type(value) is float and -_LARGEST < value < _LARGEST else finite(value)
        for key, value in values.items()
    }


@lru_cache(maxsize=256)
def _models(items: tuple[tuple[str, str], ...]) -> str:
    """The JSON of a decision's models: the same for all decisions of a process, until a policy changes."""
    return canonical(_strings(dict(items)))


def _strings(values: Mapping[str, str]) -> dict[str, str]:
    return {name(key): escape(str(value)) for key, value in values.items()}


def finite(value: float | None) -> float | None:
    """Return a number that SQLite, JSON and JSONB all return unchanged.

    NaN becomes None, infinities are clamped to +-1e15, and -0.0 becomes 0.0 (JSONB and SQLite have no negative zero).
    """
    if value is None:
        return None
    number = float(value)
    if -_LARGEST < number < _LARGEST:
        return number + 0.0
    if number != number:
        return None
    return math.copysign(_LARGEST, number)
