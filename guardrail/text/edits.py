"""A text with a map back to where it came from, and edits that keep the map."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guardrail.types import Span

__all__ = ["Edit", "Normalised", "apply", "unchanged"]

Edit = tuple[int, int, str, Sequence[int]]
"""Replace `text[start:end]` by `string`; the last item says, per new character, which old one it stands for (absolute
indices, ascending). Edits of one pass are ascending and do not overlap."""


@dataclass(frozen=True, slots=True)
class Normalised:
    """A normalised text and where each of its characters stood.

    Attributes:
        text: the normalised text, of n code points.
        offsets: n + 1 indices into the original, ascending (several may be equal), from 0 to the original's length.
        changed: whether `text` differs from the original.
    """

    text: str
    offsets: Sequence[int]
    changed: bool

    def to_original(self, start: int, end: int) -> Span:
        """The span of the original that `text[start:end]` stands for.

        What was dropped after a character counts as part of it, so that a span covers a disguised word whole.

        Raises:
            IndexError: not `0 <= start <= end <= len(text)`.
        """
        if not 0 <= start <= end <= len(self.text):
            raise IndexError(f"span ({start}, {end}) is not within a text of {len(self.text)} characters")
        if start == end:
            return self.offsets[start], self.offsets[start]
        last = self.offsets[end - 1]
        stop = self.offsets[end]
        if stop == last:  # the next character comes of the same original one (a ligature): take it whole
            stop = self.offsets[min(bisect_right(self.offsets, last, end), len(self.text))]
        return self.offsets[start], stop


def unchanged(text: str) -> Normalised:
    """The identity map."""
    return Normalised(text, range(len(text) + 1), False)


def apply(source: Normalised, edits: Iterable[Edit]) -> Normalised:
    """Apply ascending, non-overlapping edits to `source.text`; the offsets still lead to the original."""
    text, offsets = source.text, source.offsets
    pieces: list[str] = []
    kept: list[int] = []
    at = 0
    for start, end, string, origins in edits:
        pieces += (text[at:start], string)
        kept += offsets[at:start]
        kept += [offsets[origin] for origin in origins]
        at = end
    if not pieces:
        return source
    pieces.append(text[at:])
    kept += offsets[at:]
    if len(kept) > 1:
        kept[0] = 0  # what was dropped before the first character counts as part of it
    return Normalised("".join(pieces), kept, True)
