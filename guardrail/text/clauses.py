"""Clauses of a sentence: where an insult may hide between harmless words."""

from __future__ import annotations

import re
from typing import Final

from guardrail.types import Span

MIN_WORDS: Final = 2
"""A shorter piece joins the one before it."""

# After punctuation that ends a clause in any script, around dashes and brackets, and before English conjunctions.
_BOUNDARY: Final = re.compile(
    r"(?<=[,;:–—(،、，；：])\s*(?=\S)|\s+(?=[(\[–—])|\s+(?=-\s)"
    r"|\s+(?=(?:and|but|because|so|or|if|when|while|unless|that|who|which)\s)",
    re.IGNORECASE,
)


def clauses(text: str) -> list[Span]:
    """Split a sentence at clause boundaries; the spans cover it without its outer white space, in order.

    A list of one where there is nothing to split.
    """
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    cuts = [match.end() for match in _BOUNDARY.finditer(text, start, end) if start < match.end() < end]
    found: list[Span] = []
    for left, right in zip([start, *cuts], [*cuts, end], strict=True):
        words = len(text[left:right].split())
        if found and (words < MIN_WORDS or len(text[slice(*found[-1])].split()) < MIN_WORDS):
            found[-1] = (found[-1][0], right)
        else:
            found.append((left, right))
    return found
