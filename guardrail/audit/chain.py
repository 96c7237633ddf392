"""The hash chain: what a decision's hash covers, and how one follows from another.

Every community has one chain. Link n is

    hash(n) = "sha256:" + hex(sha256(hash(n - 1) + "\\n" + str(n) + "\\n" + content(n)))

where `content` is canonical JSON (keys sorted, no white space, UTF-8, numbers as Python's shortest repr) of every
column of the decision and of its scores, reasons and rewrites. Texts take part through salted digests, never
themselves, so that a text can be erased and its decision still be verified. The tag before the colon names the
algorithm, so that another one can follow without breaking what is already stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

__all__ = ["GENESIS", "canonical", "content", "digest", "link"]

GENESIS = "sha256:" + "0" * 64
"""What stands before the first link of a chain."""

CONTENT_VERSION = 1
"""Goes into every hash. A later column means a new version with its own field lists, and old rows stay verifiable."""

# Not covered: the links themselves (they are added by `link`), and what erasing a text erases (texts, salt).
_DECISION = (
    "id", "community", "request_id", "conversation", "stage", "state", "action", "risk", "policy", "revision", "shadow",
    "withheld", "altered", "text_stored", "source_length", "delivered_length", "source_digest", "delivered_digest",
    "rules", "failures", "models", "timings_ms", "note",
)  # fmt: skip
_REASON = ("position", "rule", "stage", "action", "risk", "threshold", "contributions", "spans", "description")
_REWRITE = (
    "position", "method", "chosen", "passes", "risk_before", "risk_after", "similarity", "fluency", "utility", "seed",
    "scores_after", "edits", "text_length", "text_digest",
)  # fmt: skip

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode

Row = Mapping[str, Any]


def canonical(value: Any) -> bytes:
    """Return the one JSON form of a value. All strings in it must be escaped, all numbers finite."""
    return _encode(value).encode()


def content(decision: Row, scores: Sequence[Row], reasons: Sequence[Row], rewrites: Sequence[Row]) -> bytes:
    """Return what the hash of a decision covers, from rows as they are stored (or are about to be)."""
    created_at: datetime = decision["created_at"]
    body: dict[str, Any] = {name: decision[name] for name in _DECISION}
    body["v"] = CONTENT_VERSION
    body["created_at"] = created_at.isoformat(timespec="microseconds")
    body["scores"] = {row["classifier"]: row["value"] for row in scores}
    body["reasons"] = [[row[name] for name in _REASON] for row in reasons]
    body["rewrites"] = [[row[name] for name in _REWRITE] for row in rewrites]
    return canonical(body)


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
