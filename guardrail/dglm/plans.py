"""What the candidates of one request are: which draft the decoder sees, how far the embedding moves, and chance."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.guidance import Guide
from guardrail.dglm.phrase_table import with_articles
from guardrail.types import Span

MARGINS = (1.0, 2.5, 4.0, 6.0)
"""Wanted logits on the allowed side, at strength 0.5; they scale with strength."""

_CONJUNCTION = re.compile(r"(?:and|but|or|so|because)\s+", re.IGNORECASE)
_HANGING = re.compile(r"[\s,;:]+([.!?]|$)")
_STOPS = frozenset(".!?")
_WORD = re.compile(r"[^\W\d_](?:[\w'’]*\w)?")


@dataclass(frozen=True, slots=True)
class SpanRequest:
    """One stretch to rewrite; the fields mean what those of `guardrail.rewrite.base.RewriteRequest` mean."""

    text: str
    before: str = ""
    matches: tuple[Span, ...] = ()
    guides: tuple[Guide, ...] = ()
    candidates: int = 8
    strength: float = 0.5
    mode: str = "project"
    seed: int = 0
    round: int = 0
    cancelled: Callable[[], bool] = lambda: False
    forbidden: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal and its fluency, see `Pipeline.fluency`."""

    text: str
    fluency: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One candidate.

    Attributes:
        draft: what the decoder sees, with hidden words as marks. base: the text whose embedding is moved.
        margin: wanted logit on the allowed side. temperature: of sampling, 0 is greedy.
    """

    draft: str
    base: str
    margin: float
    temperature: float


def plan_candidates(
    request: SpanRequest, words: Sequence[Span], bad: Sequence[Span], substitutes: Sequence[str] = ()
) -> list[Plan]:
    """Lay out the candidates: greedy ones first, over the ways to show the draft and rising margins, then samples.

    The draft is shown without its bad clauses, with its weighty words replaced, whole, with them hidden, and without them.
    Round 1 has the plans behind those of round 0: mostly samples, ever further from the draft.

    Args:
        words: spans of the words that weigh most. bad: spans of the clauses that would not pass by themselves.
        substitutes: copies of the text in which weighty words are replaced, best first.
    """
    near, middle, far, extreme = (margin * request.strength / 0.5 for margin in MARGINS)
    text, matches = request.text, list(request.matches)
    erased = cut(text, [*matches, *words])
    shown = (hidden(text, matches), cut(text, matches))
    masked = (hidden(text, [*matches, *words]), erased)
    shorter = cut(text, [*(span for span in matches if not overlaps(span, bad)), *bad])
    shorter = shorter[:1].upper() + shorter[1:] if text[:1].isupper() else shorter
    order = [
        *([Plan(shorter, shorter, near, 0.0)] if bad else []),
        *(Plan(copy, copy, near, 0.0) for copy in substitutes),
        Plan(*shown, near, 0.0),
        Plan(*masked, near, 0.0),
        Plan(*masked, far, 0.0),
        Plan(*shown, far, 0.0),
        Plan(erased, erased, near, 0.0),
        Plan(*masked, middle, 0.7),
        Plan(*shown, extreme, 0.0),
        Plan(*masked, near, 0.7),
    ]
    margins = (near, middle, far, extreme)
    drafts = (masked, shown, (erased, erased))
    first = request.round * request.candidates
    last = first + request.candidates
    more = (Plan(*drafts[i % 3], margins[i // 3 % 4], 0.8) for i in range(len(order), last))
    return [*order, *more][first:last]


def plan_continuations(request: SpanRequest) -> list[Plan]:
    """Lay out candidates that are written from what stood before alone: no draft, one greedy, the others samples."""
    text = request.before or request.text
    return [Plan("", text, 0.0, 0.8 if number else 0.0) for number in range(request.candidates)]


def tidy(text: str, draft: str) -> str:
    """Mend the ends where words were left out: nothing left hanging, capital and full stop as the draft has them.

    An article follows the word that now stands behind it ("an excuse" for "a shitty excuse"). Words that the draft has in
    lower case only stay so.
    """
    text = _in_lower_case(with_articles(text.strip(), draft), draft).lstrip(",;:.!?)-").lstrip()
    hanging = _CONJUNCTION.match(text)
    if hanging and not _CONJUNCTION.match(draft):
        text = text[hanging.end() :]
    text = _HANGING.sub(r"\1", text)
    if text and draft[-1:] in _STOPS and text[-1].isalnum():
        text += "."
    return text[:1].upper() + text[1:] if draft[:1].isupper() else text


def _in_lower_case(text: str, draft: str) -> str:
    """Return the text with a small initial in every word that the draft writes with one, and never with a capital."""
    cores = {match.group() for match in _WORD.finditer(draft)}

    def kept(match: re.Match[str]) -> str:
        word, begins = match.group(), text[: match.start()].rstrip()[-1:] in _STOPS
        small = word[:1].lower() + word[1:]
        return small if small in cores and word not in cores and not begins else word

    return _WORD.sub(kept, text)


def overlaps(span: Span, others: Sequence[Span]) -> bool:
    """Whether a span shares a character with one of the others."""
    return any(start < span[1] and end > span[0] for start, end in others)


def cut(text: str, spans: Sequence[Span]) -> str:
    """Return the text without the spans, the white space closed up."""
    return " ".join(_replaced(text, spans, "").split())


def hidden(text: str, spans: Sequence[Span]) -> str:
    """Return the text with a mark in the place of every span; punctuation at the end of a word stays."""
    return " ".join(_replaced(text, spans, HIDDEN).split())


def _replaced(text: str, spans: Sequence[Span], mark: str) -> str:
    for start, end in sorted(spans, reverse=True):
        word = text[start:end]
        tail = word[len(word.rstrip(".,!?;:")) :] if mark else ""
        text = text[:start] + mark + tail + text[end:]
    return text
