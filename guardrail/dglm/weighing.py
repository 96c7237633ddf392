"""Which words and clauses hold a text on the wrong side of the guides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guardrail.dglm.guidance import Guide
from guardrail.dglm.latents import Array
from guardrail.dglm.plans import SpanRequest, cut, overlaps
from guardrail.text.clauses import clauses
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

MAX_HIDDEN = 6
"""Words that are named at most."""

MAX_RANKED = 60
"""Longer texts are not searched for weighty words."""

CLEAR = -0.5
"""Logit below which a text counts as passing."""

_WORD = re.compile(r"\S+")


def weighty_words(encoder: Encoder, request: SpanRequest) -> list[Span]:
    """Return the words that hold the text on the wrong side: the fewest, worst first, without which it would pass.

    Leave-one-out over words (Li et al. 2016, "Understanding neural networks through representation erasure"): one
    batch for the ranking, one for the choice.
    """
    text, matches = request.text, list(request.matches)
    words = [match.span() for match in _WORD.finditer(text) if not overlaps(match.span(), matches)]
    away = [guide for guide in request.guides if guide.away]
    if not away or not 2 <= len(words) <= MAX_RANKED:
        return []
    trials = [cut(text, matches), *(cut(text, [*matches, word]) for word in words)]
    base, *without = _violation(encoder, trials, away)
    gains = base - np.array(without)
    order = [words[index] for index in np.argsort(-gains) if gains[index] > 0.0][: min(MAX_HIDDEN, len(words) - 1)]
    chosen = [order[: count + 1] for count in range(len(order))]
    if not chosen:
        return []
    levels = _violation(encoder, [cut(text, [*matches, *trial]) for trial in chosen], away)
    passing = next((trial for trial, level in zip(chosen, levels, strict=True) if level < CLEAR), None)
    return passing if passing is not None else chosen[int(np.argmin(levels))]


def bad_clauses(encoder: Encoder, request: SpanRequest) -> list[Span]:
    """Return the clauses that would not pass by themselves; none if there is nothing else."""
    parts = clauses(request.text)
    away = [guide for guide in request.guides if guide.away]
    if not away or len(parts) < 2:
        return []
    levels = _violation(encoder, [request.text[start:end] for start, end in parts], away)
    bad = [part for part, level in zip(parts, levels, strict=True) if level > CLEAR]
    return bad if len(bad) < len(parts) else []


def _violation(encoder: Encoder, texts: Sequence[str], guides: Sequence[Guide]) -> Array:
    """The largest guide logit of each text (N,)."""
    x = encoder.encode(texts)
    worst: Array = np.max([x @ guide.weight + guide.bias for guide in guides], axis=0)
    return worst
