"""The hash chain: what a decision's hash covers, and how one follows from another.

Every community has one chain. Link n is

    hash(n) = "sha256:" + hex(sha256(hash(n - 1) + "\\n" + str(n) + "\\n" + content(n)))

where `content` is lines of canonical JSON (keys sorted, no white space, UTF-8, numbers as Python's shortest repr) that
together hold every column of the decision and of its scores, reasons and rewrites. Texts take part through salted
digests, never themselves, so that a text can be erased and its decision still be verified. The tag before the colon
names the algorithm, so that another one can follow without breaking what is already stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

__all__ = ["GENESIS", "canonical", "content", "digest", "event_content", "link"]

GENESIS = "sha256:" + "0" * 64
"""What stands before the first link of a chain."""

CONTENT_VERSION = 2
"""Goes into every hash. A later column means a new version with its own field lists, and old rows stay verifiable."""

# Not covered: the links themselves (they are added by `link`), and what erasing a text erases (texts, salt).
_DECISION_1 = (
    "id", "community", "request_id", "conversation", "stage", "state", "action", "risk", "policy", "revision", "shadow",
    "withheld", "altered", "text_stored", "source_length", "delivered_length", "source_digest", "delivered_digest",
    "note",
)  # fmt: skip
_DECISION = {1: itemgetter(*_DECISION_1), 2: itemgetter(*_DECISION_1, "subject_digest", "embedding_digest")}
_JSON_1 = ("rules", "failures", "models", "timings_ms")
_DECISION_JSON = {1: itemgetter(*_JSON_1), 2: itemgetter(*_JSON_1, "masked")}
_EVENT = itemgetter("id", "community", "kind", "author", "decision_id", "subject")
_REASON = itemgetter("position", "rule", "stage", "action", "risk", "threshold", "description", "error")
_REASON_JSON = itemgetter("contributions", "spans")
_REWRITE = itemgetter(
    "position", "method", "chosen", "passes", "risk_before", "risk_after", "similarity", "fluency", "utility", "seed",
    "text_length", "text_digest",
)  # fmt: skip
_REWRITE_JSON = itemgetter("scores_after", "edits")

Row = Mapping[Any, Any]

_encoder = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _make_encode() -> Callable[[object], str]:
    """`_encoder.encode`, without making a new C encoder at every call, which takes as long as a short value itself."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        return _encoder.encode
    quote = json.encoder.encode_basestring
    encode = make(None, _encoder.default, quote, None, ":", ",", True, False, False)
    return lambda value: "".join(encode(value, 0))


_encode = _make_encode()


def canonical(value: object) -> str:
    """Return the one JSON text of a value. All strings in it must be escaped, all numbers finite."""
    if not value and isinstance(value, dict):  # the most frequent value of all
        return "{}"
    return _encode(value)


def content(
    decision: Row, scores: Mapping[str, float | None], reasons: Sequence[Row], rewrites: Sequence[Row]
) -> bytes:
    """Return what the hash of a decision covers.

    Args:
        decision, reasons, rewrites: rows as they are stored (or are about to be), with the values of JSON columns as
            canonical text: writing needs that text anyway, and making it is most of the work here.
        scores: classifier to value.
    """
    created_at: datetime = decision["created_at"]
    version: int = decision["content_version"]
    lines = [_encode([version, created_at.isoformat(timespec="microseconds"), *_DECISION[version](decision)])]
    lines += [text or "null" for text in _DECISION_JSON[version](decision)]
    lines.append(canonical(scores))
    for reason in reasons:
        lines.append(_encode(["reason", *_REASON(reason)]))
        lines += _REASON_JSON(reason)
    for rewrite in rewrites:
        lines.append(_encode(["rewrite", *_REWRITE(rewrite)]))
        lines += [text or "null" for text in _REWRITE_JSON(rewrite)]
    return "\n".join(lines).encode()


def event_content(event: Row) -> bytes:
    """Return what the hash of an event covers: all of its columns but the salt.

    Args:
        event: a row of `events`, with `details` as a value.
    """
    created_at: datetime = event["created_at"]
    head = _encode(["event", 1, created_at.isoformat(timespec="microseconds"), *_EVENT(event)])
    return f"{head}\n{_encode(event['details'])}".encode()


def link(previous_hash: str, sequence: int, body: bytes) -> str:
    """Return the hash of the decision at `sequence` whose content is `body`."""
    return "sha256:" + hashlib.sha256(f"{previous_hash}\n{sequence}\n".encode() + body).hexdigest()


def digest(salt: str, text: str) -> str:
    """Return the salted digest of an (escaped) text: proof of the text for who has it, no help in guessing it without
    the salt.

    Args:
        salt: hexadecimal.
    """
    return "sha256:" + hashlib.sha256(bytes.fromhex(salt) + text.encode()).hexdigest()
