"""Any Python string in any database, without loss.

PostgreSQL refuses U+0000 in text and in JSONB, and a lone surrogate (U+D800 to U+DFFF) has no UTF-8 form at all. Both
reach us: a model emits NUL, a client cuts an emoji in half. Such a code point is stored as U+001A SUBSTITUTE followed
by its four hexadecimal digits; U+001A itself is stored the same way, so that `unescape(escape(text)) == text` for
every string. All other text is stored as it is.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

__all__ = ["MAX_IDENTIFIER", "escape", "identifier", "name", "unescape", "unescape_json"]

MAX_IDENTIFIER = 255
"""Code points of the longest identifier stored in full: an index entry of PostgreSQL holds about 2700 bytes."""

_REFUSED = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")


def escape(text: str) -> str:
    """Return `text` in the form that every database accepts."""
    if _REFUSED.search(text) is None:
        return text
    return _REFUSED.sub(lambda match: f"\x1a{ord(match.group()):04x}", text)


def unescape(text: str) -> str:
    """Return the original of an escaped text."""
    if "\x1a" not in text:
        return text
    return _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), text)


def identifier(text: str) -> str:
    """Return the stored form of an identifier: escaped and, where it is too long to be indexed, shortened.

    A shortened identifier keeps its beginning and carries the sha256 of the whole, so equal ones stay equal.
    """
    escaped = escape(text)
    if len(escaped) <= MAX_IDENTIFIER:
        return escaped
    digest = hashlib.sha256(escaped.encode()).hexdigest()
    return f"{escaped[: MAX_IDENTIFIER - len(digest) - 10]}...sha256:{digest}"


@lru_cache(maxsize=4096)
def name(text: str) -> str:
    """`identifier`, for the names of rules, classifiers, models: few, and seen again and again."""
    return identifier(text)


def unescape_json(value: Any) -> Any:
    """Return the original of an escaped JSON value."""
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, dict):
        return {unescape(key): unescape_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unescape_json(item) for item in value]
    return value
