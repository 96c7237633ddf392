"""A text as it is judged: its sentences and windows, and each as the encoder should read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guardrail.text.normalise import normalise
from guardrail.text.segment import sentences, windows
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

__all__ = ["WINDOW_TOKENS", "Reading", "inside", "minimal", "pieces", "trim"]

WINDOW_TOKENS = 128
"""Word pieces per window, and per piece of an overlong sentence."""


class Reading:
    """A text as the encoder reads it: as it is, and with obfuscation undone where there is any."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._normal = normalise(text)

    def variants(self, span: Span) -> list[str]:
        """Return the text of a span, and its normal form if that differs: whichever is worse counts."""
        raw = self.text[span[0] : span[1]]
        if not self._normal.changed:
            return [raw]
        undone = normalise(raw).text
        return [raw] if undone == raw else [raw, undone]


def pieces(text: str, encoder: Encoder) -> list[Span]:
    """Return the sentences of a text without blank ones; one that the encoder might cut is windowed."""
    found: list[Span] = []
    for start, end in sentences(text):
        if end - start <= encoder.max_tokens - 2:  # a token is a character or more
            found.append((start, end))
        else:
            parts = windows(text[start:end], encoder.token_counts, WINDOW_TOKENS)
            found.extend((start + a, start + b) for a, b in parts)
    spans = [trim(text, span) for span in found]
    return [span for span in spans if span[0] < span[1]] or [(0, len(text))]


def inside(inner: Span, outer: Span) -> bool:
    """Whether `inner` lies within `outer`; they may be equal."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def minimal(spans: Sequence[Span]) -> list[Span]:
    """Return the spans that contain no other of them, sorted."""
    distinct = sorted(set(spans))
    return [span for span in distinct if not any(other != span and inside(other, span) for other in distinct)]


def trim(text: str, span: Span) -> Span:
    """Return the span without white space at its ends."""
    start, end = span
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip())
