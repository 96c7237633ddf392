"""Which words and clauses hold a text on the wrong side of the guides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from guardrail.dglm.embedding import Embeds
from guardrail.dglm.guidance import Guide
from guardrail.dglm.latents import Array
from guardrail.dglm.plans import SpanRequest, cut, overlaps
from guardrail.text.clauses import clauses
from guardrail.types import Span

MAX_HIDDEN = 6
"""Words that are named at most."""

MAX_RANKED = 60
"""Longer texts are not searched for weighty words."""

TRIALS = (0, 1, 3, MAX_HIDDEN)
"""Bounds of the batches in which more and more words are left out: one word suffices most often."""

CLEAR = -0.5
"""Logit below which a text counts as passing."""

LONGEST_MATCH = 2
"""Words of a match that is hidden or left out as a whole."""

_WORD = re.compile(r"\S+")


def narrowed(request: SpanRequest) -> SpanRequest:
    """Return the request without the matches of more than `LONGEST_MATCH` words, if its guides can weigh words instead.

    A pattern like "you are a(n) ... X" matches the whole of an insult; with all of it hidden, nothing says what to rewrite.
    Its words are weighed like all others, and what the pattern forbids is not written in any case (`SpanRequest.forbidden`).
    """
    if request.forbidden is None or not any(guide.away for guide in request.guides):
        return request
    short = tuple(span for span in request.matches if len(request.text[slice(*span)].split()) <= LONGEST_MATCH)
    return replace(request, matches=short)


def weighty_words(encoder: Embeds, request: SpanRequest) -> list[Span]:
    """Return the words that hold the text on the wrong side: the fewest, worst first, without which it would pass.

    Leave-one-out over words (Li et al. 2016, "Understanding neural networks through representation erasure"), then more
    and more of them left out, until the text passes.

    Args:
        encoder: best one that remembers (`Once`): the text without its worst word is asked for in both parts.
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
    levels: list[float] = []
    for first, last in pairwise(TRIALS):
        chosen = [order[: count + 1] for count in range(len(order))][first:last]
        if chosen:
            levels += _violation(encoder, [cut(text, [*matches, *trial]) for trial in chosen], away).tolist()
        passing = next((count for count, level in enumerate(levels) if level < CLEAR), None)
        if passing is not None:
            return order[: passing + 1]
    return order[: int(np.argmin(levels)) + 1] if levels else []


def bad_clauses(encoder: Embeds, request: SpanRequest) -> list[Span]:
    """Return the clauses that would not pass by themselves; none if there is nothing else."""
    parts = clauses(request.text)
    away = [guide for guide in request.guides if guide.away]
    if not away or len(parts) < 2:
        return []
    levels = _violation(encoder, [request.text[start:end] for start, end in parts], away)
    bad = [part for part, level in zip(parts, levels, strict=True) if level > CLEAR]
    return bad if len(bad) < len(parts) else []


def _violation(encoder: Embeds, texts: Sequence[str], guides: Sequence[Guide]) -> Array:
    """The largest guide logit of each text (N,)."""
    x = encoder.encode(texts)
    worst: Array = np.max([x @ guide.weight + guide.bias for guide in guides], axis=0)
    return worst
