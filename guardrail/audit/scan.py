"""Words looked for in the texts themselves: what is left of a search where the database holds only encrypted texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select

from guardrail.audit.escaping import unescape
from guardrail.audit.sealing import locked
from guardrail.audit.search import INDEXED, Terms
from guardrail.audit.tables import decisions

__all__ = ["SCANNED", "holds_words", "with_words"]

SCANNED = 20_000
"""Decisions whose texts are opened for one page."""

_SLICE = 500
_COLUMNS = (decisions.c.id, decisions.c.created_at, decisions.c.source_text, decisions.c.delivered_text)


def with_words(
    connection: Connection, query: Select[Any], terms: Terms, limit: int
) -> tuple[list[str], Mapping[Any, Any] | None]:
    """Return the ids of the first decisions of a query whose texts hold what is searched for.

    Args:
        query: of whole rows of `decisions`, in the order of a page, with a limit of `SCANNED` + 1.
        terms: see `guardrail.audit.search.terms`.
        limit: how many at most.

    Returns:
        The ids, and the row after which a next page begins; None where everything was looked through.
    """
    found: list[str] = []
    looked, last = 0, None
    streamed = connection.execution_options(stream_results=True, yield_per=_SLICE)
    with streamed.execute(query.with_only_columns(*_COLUMNS)) as rows:
        for row in rows.mappings():
            if len(found) == limit or looked == SCANNED:
                return found, last
            looked, last = looked + 1, row
            if holds_words((row["source_text"], row["delivered_text"]), terms):
                found.append(unescape(row["id"]))
    return found, None


def holds_words(texts: Sequence[str | None], terms: Terms) -> bool:
    """Whether every term occurs in one of the texts; letter case is ignored. A text that cannot be opened holds none."""
    known = [_words(text) for text in texts if text is not None and not locked(text)]
    return all(any(_occurs(words, begins, own) for own in known) for words, begins in terms)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unescape(text)[:INDEXED].lower())


def _occurs(words: Sequence[str], begins: bool, own: Sequence[str]) -> bool:
    size = len(words)
    *whole, last = [word.lower() for word in words]
    for start in range(len(own) - size + 1):
        if list(own[start : start + size - 1]) != whole:
            continue
        there = own[start + size - 1]
        if there == last or (begins and there.startswith(last)):
            return True
    return False
