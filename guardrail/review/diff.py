"""Two texts side by side: which words went, which came, and which parts the policy objected to.

A text becomes a list of pieces that templates print one after the other; nothing here makes HTML.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.types import Span

__all__ = ["LONGEST", "Piece", "compare", "mark", "shorten"]

LONGEST = 20_000
"""Code points of a text that a page shows; the rest is a link away."""

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
_MOST_WORK = 2_000_000  # pairs of equal words that difflib would look at

Edit = tuple[Span, Span]  # what stands in the first text, and in the second instead


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text. `changed`: it stands on this side only. `rules`: who objects to it."""

    text: str
    changed: bool = False
    rules: tuple[str, ...] = ()


def compare(before: str, after: str) -> tuple[list[Span], list[Span]]:
    """Return the spans of `before` that are gone and the spans of `after` that are new, by words.

    Where a comparison would take too long (thousands of equal words on both sides), what differs is given as one block.
    """
    first, second = _WORDS.findall(before), _WORDS.findall(after)
    head = _common(first, second)
    tail = _common(first[head:][::-1], second[head:][::-1])
    left, right = first[head : len(first) - tail], second[head : len(second) - tail]
    at_left, at_right = len("".join(first[:head])), len("".join(second[:head]))
    gone: list[Span] = []
    new: list[Span] = []
    for kind, a, b, c, d in _operations(left, right):
        if kind != "equal":
            _add(gone, left, a, b, at_left)
            _add(new, right, c, d, at_right)
    return gone, new


def _operations(left: list[str], right: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    counts = Counter(right)
    if sum(counts[word] for word in left) > _MOST_WORK:
        return [("replace", 0, len(left), 0, len(right))]
    found = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    # Two changed words with a space between them read as one change, not as two with an unchanged space.
    return [
        ("replace" if 0 < at < len(found) - 1 and not "".join(left[a:b]).strip() else kind, a, b, c, d)
        for at, (kind, a, b, c, d) in enumerate(found)
    ]


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return min(len(left), len(right))


def _add(spans: list[Span], words: list[str], start: int, end: int, offset: int) -> None:
    if start < end:
        begin = offset + len("".join(words[:start]))
        finish = begin + len("".join(words[start:end]))
        if spans and spans[-1][1] == begin:
            spans[-1] = (spans[-1][0], finish)
        else:
            spans.append((begin, finish))


def mark(
    text: str, changed: Sequence[Span], objected: Sequence[tuple[str, Span]], longest: int = LONGEST
) -> list[Piece]:
    """Cut `text` (its first `longest` code points) into pieces at every boundary of the spans.

    Args:
        changed: spans on this side only.
        objected: (rule, span) pairs; they may overlap, and may reach beyond the text.
    """
    size = min(len(text), longest)
    cuts = {0, size}
    for start, end in (*changed, *(span for _, span in objected)):
        cuts |= {min(size, max(0, start)), min(size, max(0, end))}
    places = sorted(cuts)
    pieces = []
    for start, end in itertools.pairwise(places):
        differs = any(a <= start and end <= b for a, b in changed)
        rules = tuple(dict.fromkeys(rule for rule, (a, b) in objected if a <= start and end <= b))
        pieces.append(Piece(text[start:end], differs, rules))
    return pieces


def shorten(text: str, longest: int = 240) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: longest * 4].split())
    return line if len(line) <= longest and len(text) <= longest * 4 else line[: longest - 1].rstrip() + "…"
