"""Sentences, windows, and the splitter that releases a stream sentence by sentence.

One scanner serves both, so a stream cut anywhere gives the sentences of the whole text: every decision depends on the
sentence and at most one character after `max_chars`, and is put off until those characters are there.

A sentence ends where a full stop of any script, or a line, ends, unless what follows shows that it goes on
(abbreviation, initial, ellipsis before a small letter, quotation that goes on, hard-wrapped line). White space after a
sentence belongs to it. A fenced code block is one unit. A sentence longer than `max_chars` is cut at a word.

Rule-based with an abbreviation list, after Mikheev, "Periods, Capitalized Words, etc." (Computational Linguistics
28(3), 2002), section 3; terminators and closers after Unicode UAX 29, section 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from guardrail.text.scanner import Scanner, cut
from guardrail.types import Span

__all__ = ["MAX_CHARS", "SentenceSplitter", "fenced_code", "sentences", "windows"]

MAX_CHARS = 2000
"""Longest sentence in code points before it is cut at a word."""

_FENCE_LINE = re.compile(r"(?m)^[ \t]*(`{3,}|~{3,})([^\n]*)(?:\n|\Z)")


def sentences(text: str, max_chars: int = MAX_CHARS) -> list[Span]:
    """Split into sentences that cover the text without gap or overlap; white space belongs to the sentence before.

    Args:
        text: anything, lone surrogates and control characters included.
        max_chars: a longer sentence is cut at a word (at a character where there is none).

    Raises:
        ValueError: `max_chars` is below 1.
    """
    spans: list[Span] = []
    start = 0
    for end in Scanner(max_chars).ends(text):
        spans.append((start, end))
        start = end
    if start < len(text):
        spans.append((start, len(text)))
    return spans


class SentenceSplitter:
    """Splits a stream: `feed` returns the sentences that what followed has proved complete, `flush` the last one.

    The parts are exactly the sentences of everything that was fed, however the stream was cut; joined they are the
    stream. Holds at most `max_chars` characters between calls. Not thread-safe: one per stream.

    Args:
        max_chars: an endless sentence is released in pieces of at most this many code points.
    """

    def __init__(self, max_chars: int = MAX_CHARS) -> None:
        self._max = max_chars
        self._scanner = Scanner(max_chars)
        self._held = ""

    @property
    def held(self) -> str:
        """What was fed and not yet returned."""
        return self._held

    def feed(self, delta: str) -> list[str]:
        """Take the next part of the stream; return the sentences that are now complete, often none."""
        self._held += delta
        start, parts = 0, []
        for end in self._scanner.ends(self._held):
            parts.append(self._held[start:end])
            start = end
        if start:
            self._held = self._held[start:]
        return parts

    def flush(self) -> str:
        """End of the stream: return the last sentence (empty if nothing is held) and start anew."""
        rest, self._held = self._held, ""
        self._scanner = Scanner(self._max)
        return rest


def fenced_code(text: str) -> list[Span]:
    """Spans of fenced code blocks, fences included; one that is never closed runs to the end (CommonMark 4.5)."""
    spans: list[Span] = []
    opened: tuple[int, str] | None = None
    for line in _FENCE_LINE.finditer(text):
        marker, info = line.group(1), line.group(2)
        if opened is None:
            if not (marker[0] == "`" and "`" in info):
                opened = (line.start(), marker)
        elif marker.startswith(opened[1]) and not info.strip():
            spans.append((opened[0], line.end()))
            opened = None
    if opened is not None:
        spans.append((opened[0], len(text)))
    return spans


def windows(text: str, token_counts: Callable[[Sequence[str]], list[int]], limit: int) -> list[Span]:
    """Pack whole sentences greedily into windows of at most `limit` tokens; together they cover the text.

    A sentence of more tokens is cut at words. Counts are added up, so a tokenizer that counts its special tokens
    makes windows shorter than they need be, never longer. A single character is never cut, whatever its count.

    Args:
        text: anything; empty text has no windows.
        token_counts: tokens of each of many texts, in one call.
        limit: tokens per window.

    Raises:
        ValueError: `limit` is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1 token, not {limit}")
    packed: list[Span] = []
    room = 0
    for (start, end), count in _counted(text, token_counts, limit):
        if packed and count <= room:
            packed[-1] = (packed[-1][0], end)
            room -= count
        else:
            packed.append((start, end))
            room = limit - count
    return packed


def _counted(text: str, token_counts: Callable[[Sequence[str]], list[int]], limit: int) -> Iterator[tuple[Span, int]]:
    """Sentences with their counts; those over the limit are halved, all of a round counted in one call."""
    done: dict[Span, int] = {}
    todo = sentences(text)
    while todo:
        rest: list[Span] = []
        for (start, end), count in zip(todo, token_counts([text[start:end] for start, end in todo]), strict=True):
            if count <= limit or end - start == 1:
                done[start, end] = count
                continue
            middle = cut(text, start, start + (end - start) * 2 // 3 if end - start > 2 else start + 1)
            rest += [(start, middle), (middle, end)]
        todo = rest
    yield from sorted(done.items())
