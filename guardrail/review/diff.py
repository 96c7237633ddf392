"""Two texts side by side: which words went, which came, and which parts the policy objected to.

A text becomes a list of pieces that templates print one after the other; nothing here makes HTML. The work grows with the
length of the texts, not with its square: a draft of a megabyte must not hold up a page.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guardrail.types import Span

__all__ = ["LONGEST", "Piece", "Sides", "beside", "compare", "mark", "shorten"]

LONGEST = 20_000
"""Code points of a text that a page shows; the rest is a link away."""

_LEAD = 2_000
"""Code points shown before what matters, where that lies far inside of a long text."""

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
_RUNS = (12, 5, 1)
"""Lengths of runs of words that are looked for as landmarks, the most telling first."""

_CELLS = 400_000
"""Pairs of words that are compared one by one in what lies between the landmarks of two texts."""

Match = tuple[int, int, int]  # place in the first text, in the second, how many words


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text. `changed`: it stands on this side only. `rules`: who objects to it."""

    text: str
    changed: bool = False
    rules: tuple[str, ...] = ()


def compare(before: str, after: str) -> tuple[list[Span], list[Span]]:
    """Return the spans of `before` that are gone and the spans of `after` that are new, by words.

    Runs of words that occur once on each side, in the same order, are taken as unchanged (as in Cohen's patience diff),
    longer runs before shorter ones; what lies between is compared word by word as long as that is little work, and else
    given as one block.
    """
    first, second = _WORDS.findall(before), _WORDS.findall(after)
    at_first = [0, *itertools.accumulate(map(len, first))]
    at_second = [0, *itertools.accumulate(map(len, second))]
    gone: list[Span] = []
    new: list[Span] = []
    done_first = done_second = 0
    for a, b, size in (*_unchanged(first, second), (len(first), len(second), 0)):
        _add(gone, at_first[done_first], at_first[a])
        _add(new, at_second[done_second], at_second[b])
        done_first, done_second = a + size, b + size
    return gone, new


def _add(spans: list[Span], start: int, end: int) -> None:
    if start < end:
        spans.append((start, end))


def _unchanged(first: Sequence[str], second: Sequence[str]) -> list[Match]:
    """What stands in both texts, in order; each match as long as it can be."""
    found: list[Match] = []
    work = _CELLS
    waiting = [(0, len(first), 0, len(second), 0)]  # (from, to) on both sides, and which length of run is next
    while waiting:
        a, a_end, b, b_end, level = waiting.pop()
        head = _common(first, second, range(a, a_end), range(b, b_end))
        tail = _common(first, second, range(a_end - 1, a + head - 1, -1), range(b_end - 1, b + head - 1, -1))
        found += [(a, b, head), (a_end - tail, b_end - tail, tail)]
        a, a_end, b, b_end = a + head, a_end - tail, b + head, b_end - tail
        cells = (a_end - a) * (b_end - b)
        if not cells:
            continue
        if level < len(_RUNS) and cells > 16:
            marks = _landmarks(first[a:a_end], second[b:b_end], _RUNS[level])
            inside = [(a + x, b + y, _RUNS[level]) for x, y in marks]
            found += inside
            waiting += ((*gap, level + 1) for gap in _between(inside, a, a_end, b, b_end))
        elif cells <= work:
            work -= cells
            found += ((a + x, b + y, 1) for x, y in _longest_common(first[a:a_end], second[b:b_end]))
    return _joined(sorted(match for match in found if match[2]), first)


def _common(first: Sequence[str], second: Sequence[str], left: range, right: range) -> int:
    """How many words are the same from the start of both ranges on."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if first[a] != second[b]:
            break
        count += 1
    return count


def _landmarks(left: Sequence[str], right: Sequence[str], size: int) -> list[tuple[int, int]]:
    """Where runs of `size` words stand that occur once on each side: the most of them that are in the same order."""
    place = {run: at for run, at in _once(left, size).items() if at >= 0}
    pairs = sorted((place[run], at) for run, at in _once(right, size).items() if at >= 0 and run in place)
    chosen: list[tuple[int, int]] = []
    for a, b in _rising(pairs):
        if not chosen or (a >= chosen[-1][0] + size and b >= chosen[-1][1] + size):
            chosen.append((a, b))
    return chosen


def _once(words: Sequence[str], size: int) -> dict[tuple[str, ...], int]:
    """Each run of words and where it stands; -1 where it stands twice."""
    found: dict[tuple[str, ...], int] = {}
    for at, run in enumerate(zip(*(words[shift:] for shift in range(size)), strict=False)):
        found[run] = -1 if run in found else at
    return found


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest choice of pairs, given in the order of their first numbers, in which the second ones rise too."""
    ends: list[int] = []  # the least second number that ends a rise of each length
    at: list[int] = []  # which pair that is
    before: list[int] = []
    for index, (_, b) in enumerate(pairs):
        length = bisect_left(ends, b)
        ends[length : length + 1] = [b]
        at[length : length + 1] = [index]
        before.append(at[length - 1] if length else -1)
    chosen = []
    index = at[-1] if at else -1
    while index >= 0:
        chosen.append(pairs[index])
        index = before[index]
    return chosen[::-1]


def _between(matches: Sequence[Match], a: int, a_end: int, b: int, b_end: int) -> Iterator[tuple[int, int, int, int]]:
    for x, y, size in (*matches, (a_end, b_end, 0)):
        if a < x and b < y:
            yield a, x, b, y
        a, b = x + size, y + size


def _longest_common(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """The places of a longest common subsequence, by dynamic programming over all pairs."""
    rows = [[0] * (len(right) + 1)]  # rows[i][j]: its length for the last i words of left and the last j of right
    for one in reversed(left):
        row, last = [0], rows[-1]
        for at, other in enumerate(reversed(right)):
            row.append(last[at] + 1 if one == other else max(row[at], last[at + 1]))
        rows.append(row)
    found, i, j = [], len(left), len(right)
    while i and j:
        if left[-i] == right[-j]:
            found.append((len(left) - i, len(right) - j))
            i, j = i - 1, j - 1
        elif rows[i - 1][j] >= rows[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def _joined(matches: Sequence[Match], words: Sequence[str]) -> list[Match]:
    """Neighbours made one; without those of spaces alone, so that two changed words read as one change and not as two."""
    joined: list[Match] = []
    for a, b, size in matches:
        if joined and joined[-1][0] + joined[-1][2] == a and joined[-1][1] + joined[-1][2] == b:
            joined[-1] = (*joined[-1][:2], joined[-1][2] + size)
        else:
            joined.append((a, b, size))
    ends = {0, len(joined) - 1}
    return [
        (a, b, size)
        for at, (a, b, size) in enumerate(joined)
        if at in ends or not all(word.isspace() for word in words[a : a + size])
    ]


@dataclass(frozen=True, slots=True)
class Sides:
    """Draft and delivered text beside each other, and which part of each is shown."""

    draft: Sequence[Piece]
    delivered: Sequence[Piece]
    draft_part: Span
    delivered_part: Span


def beside(before: str, after: str, objected: Sequence[tuple[str, Span]], *, compared: bool) -> Sides:
    """Show a draft and what was delivered: from the beginning, or from shortly before what matters in a long text.

    Args:
        objected: (rule, span of the draft) pairs.
        compared: whether the words of both are compared; not where a refusal was delivered.
    """
    places = [start for _, (start, _) in objected]
    if compared:
        places.append(_prefix(before, after))
    place = min(places, default=0)
    start = place - _LEAD if place > LONGEST - _LEAD else 0  # both texts are the same up to there
    shared = start if compared else 0
    draft_part = start, min(len(before), start + LONGEST)
    delivered_part = shared, min(len(after), shared + LONGEST)
    gone: list[Span] = []
    new: list[Span] = []
    if compared:
        reach = slice(start, start + 2 * LONGEST)  # what is shown must be matched beyond its end
        spans = compare(before[reach], after[reach])
        gone, new = ([(start + a, start + b) for a, b in side] for side in spans)
    draft, delivered = mark(before, gone, objected, *draft_part), mark(after, new, (), *delivered_part)
    return Sides(draft, delivered, draft_part, delivered_part)


def _prefix(before: str, after: str) -> int:
    """How many code points are the same at the beginning of both."""
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        if before[low:middle] == after[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def mark(
    text: str, changed: Sequence[Span], objected: Sequence[tuple[str, Span]], first: int = 0, last: int | None = None
) -> list[Piece]:
    """Cut `text`, from `first` to `last` (its end), into pieces at every boundary of the spans.

    Args:
        changed: spans on this side only.
        objected: (rule, span) pairs; they may overlap, and may reach beyond the text.
    """
    last = len(text) if last is None else min(len(text), last)
    cuts: dict[int, list[tuple[int, str | None]]] = defaultdict(
        list
    )  # place -> (+1 begins, -1 ends; rule, None: change)
    cuts[first], cuts[last] = [], []
    for rule, span in (*((None, span) for span in changed), *objected):
        start, end = (min(last, max(first, place)) for place in span)
        if start < end:
            cuts[start].append((1, rule))
            cuts[end].append((-1, rule))
    pieces = []
    open_: Counter[str | None] = Counter()
    for start, end in itertools.pairwise(sorted(cuts)):
        for step, rule in cuts[start]:
            open_[rule] += step
        rules = tuple(rule for rule, count in open_.items() if rule is not None and count)
        pieces.append(Piece(text[start:end], open_[None] > 0, rules))
    return pieces


def shorten(text: str, longest: int = 240) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: longest * 4].split())
    return line if len(line) <= longest and len(text) <= longest * 4 else line[: longest - 1].rstrip() + "…"
