"""The revision of a policy: one hash of everything that it decides by, the same on every machine.

Hashed is the canonical JSON (sorted keys, no spaces, ASCII) of the resolved document with all defaults. A file that a
classifier names stands in it by the hash of its content, so editing a lexicon makes a new revision, moving it does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from guardrail.policy.schema import PolicyDocument


def content_hash(content: bytes) -> str:
    """`"sha256:<hex>"` of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def canonical_json(document: PolicyDocument, files: Mapping[tuple[str, str], str] | None = None) -> str:
    """The text that is hashed, and that the audit store keeps.

    Args:
        document: the resolved policy.
        files: (classifier, option) to the content hash that stands for the file named there.
    """
    plain = document.model_dump(mode="json", exclude={"extends"})
    for (classifier, option), digest in (files or {}).items():
        plain["classifiers"][classifier][option] = digest
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def revision_of(canonical: str) -> str:
    """`"sha256:<hex>"` of a canonical policy text."""
    return content_hash(canonical.encode("ascii"))
