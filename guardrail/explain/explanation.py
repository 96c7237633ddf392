"""From a judged text to its explanation: contributions of classifiers, relevance of words, and a counterfactual.

The score that is explained is the pooled log odds of a violated rule, on the sentence (or clause, or window) where they
were largest. Linear heads are explained through the encoder; a classifier that points at words, such as a list of them,
through these words; any other adds the same to every word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from guardrail.explain.suppression import relevance, suppressed, words
from guardrail.policy.bundle import MAX_LOGIT, Bundle, logit
from guardrail.text.normalise import normalise
from guardrail.types import Action, Judgement, Passage, Reason, Span

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

__all__ = ["Counterfactual", "Explanation", "RuleExplanation", "Word", "explain"]

MOST_REMOVED = 12  # words that a counterfactual takes out at most
_SPACES = re.compile(r"[ \t]{2,}")


class _Unit(Protocol):
    @property
    def span(self) -> Span: ...
    @property
    def risks(self) -> Mapping[str, float]: ...
    @property
    def logits(self) -> Mapping[str, float]: ...


class _Verdict(Protocol):
    @property
    def judgement(self) -> Judgement: ...
    @property
    def units(self) -> Sequence[Any]: ...


class _Judge(Protocol):
    bundle: Bundle

    def judge(self, passages: Sequence[Passage], /) -> Sequence[_Verdict]: ...


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the original text and what the rule's log odds lose without it (negative: what they gain)."""

    span: Span
    text: str
    relevance: float


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """Why one rule acted.

    Attributes:
        rule: its name; description: what it is for; action: what it asks for; risk, threshold: its numbers.
        contributions: what each classifier adds, as in `Reason`.
        span: the stretch of the text that was judged worst, and is explained.
        words: its words in order, empty where the rule could not be judged.
        error: why it could not be judged.
    """

    rule: str
    description: str
    action: Action
    risk: float
    threshold: float
    contributions: Mapping[str, float]
    span: Span
    words: tuple[Word, ...] = ()
    error: str = ""

    @property
    def strongest(self) -> tuple[Word, ...]:
        """The words that raise the risk, most relevant first."""
        return tuple(sorted((one for one in self.words if one.relevance > 0), key=lambda one: -one.relevance))


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Few words without which the text would pass; judged by the whole policy, not inferred.

    Attributes:
        spans: what was taken out of the original, in order; words: the same as text.
        text: what is left; action, risk: what the policy says of it.
    """

    spans: tuple[Span, ...]
    words: tuple[str, ...]
    text: str
    action: Action
    risk: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a text was judged as it was; without rules where nothing was found."""

    text: str
    action: Action
    risk: float
    rules: tuple[RuleExplanation, ...] = ()
    counterfactual: Counterfactual | None = None

    @property
    def note(self) -> str:
        """The counterfactual in a sentence."""
        if not self.rules:
            return "no rule acted"
        if self.counterfactual is None:
            return f"taking out up to {MOST_REMOVED} of the most relevant words does not let it pass"
        return "would pass without " + ", ".join(f"“{word}”" for word in self.counterfactual.words)

    def as_json(self) -> dict[str, Any]:
        """Plain values; spans are [start, end) in code points of the text."""
        return {
            "action": self.action.value,
            "risk": self.risk,
            "rules": [
                {
                    "rule": rule.rule,
                    "description": rule.description,
                    "action": rule.action.value,
                    "risk": rule.risk,
                    "threshold": rule.threshold,
                    "contributions": dict(rule.contributions),
                    "span": list(rule.span),
                    "words": [
                        {"span": list(word.span), "text": word.text, "relevance": round(word.relevance, 4)}
                        for word in rule.words
                    ],
                    "error": rule.error,
                }
                for rule in self.rules
            ],
            "counterfactual": None
            if self.counterfactual is None
            else {
                "spans": [list(span) for span in self.counterfactual.spans],
                "words": list(self.counterfactual.words),
                "text": self.counterfactual.text,
                "action": self.counterfactual.action.value,
                "risk": self.counterfactual.risk,
            },
            "note": self.note,
        }


def explain(judge: _Judge, encoder: Callable[[], Encoder], passage: Passage) -> Explanation:
    """Judge a passage and explain every rule that acted.

    Args:
        judge: of the policy.
        encoder: called where a rule weighs a linear head.
        passage: what to judge; a long one is explained where it is worst.
    """
    (verdict,) = judge.judge([passage])
    judgement = verdict.judgement
    found = tuple(_rule(judge.bundle, encoder, passage, verdict, reason) for reason in judgement.reasons)
    explanation = Explanation(passage.text, judgement.action, judgement.risk, found)
    return replace(explanation, counterfactual=_counterfactual(judge, passage, explanation)) if found else explanation


def _rule(
    bundle: Bundle, encoder: Callable[[], Encoder], passage: Passage, verdict: _Verdict, reason: Reason
) -> RuleExplanation:
    whole = (0, len(passage.text))
    plain = RuleExplanation(
        reason.rule, reason.description, reason.action, reason.risk, reason.threshold, reason.contributions, whole
    )
    judged = [unit for unit in verdict.units if reason.rule in unit.risks]
    if reason.error or not judged:
        return replace(plain, error=reason.error or "not judged")
    worst: _Unit = max(judged, key=lambda unit: (unit.risks[reason.rule], unit.span[0] - unit.span[1]))
    return replace(plain, span=worst.span, words=_words(bundle, encoder, passage, worst, reason))


def _words(
    bundle: Bundle, encoder: Callable[[], Encoder], passage: Passage, unit: _Unit, reason: Reason
) -> tuple[Word, ...]:
    """The words of a unit with their relevance.

    Of a disguised text it is the undisguised reading, whose words are those that a reader sees, if that breaks the rule
    too; otherwise the text as it stands.
    """
    start, end = unit.span
    raw = passage.text[start:end]
    normal = normalise(raw)
    weighed = bundle.policy.document.rules[reason.rule].weights
    linear = any(name in bundle.heads for name in weighed)
    enough = float(logit(reason.threshold))
    best: tuple[float, tuple[Word, ...]] | None = None
    for text, offsets in [(raw, None)] + ([(normal.text, normal)] if normal.changed else []):
        spans = words(text)
        here = [offsets.to_original(*span) if offsets else span for span in spans]
        places = [(start + a, start + b) for a, b in here]
        matched = [any(a < stop and b > begin for begin, stop in reason.spans) for a, b in places]
        vectors = suppressed(encoder(), text, spans) if linear else None
        odds = _log_odds(bundle, reason, vectors, unit, matched)
        found = tuple(
            Word(place, passage.text[slice(*place)], float(value))
            for place, value in zip(places, relevance(odds), strict=True)
        )
        if best is None or odds[0] >= min(best[0], enough):
            best = (float(odds[0]), found)
    return best[1] if best else ()


def _log_odds(
    bundle: Bundle, reason: Reason, vectors: np.ndarray | None, unit: _Unit, matched: Sequence[bool]
) -> np.ndarray:
    """(n + 1,) log odds of a rule: of the unit, and without each of its n words."""
    rows = len(matched) + 1
    columns: dict[str, np.ndarray] = {}
    if vectors is not None:
        logits = bundle.head_logits(vectors)
        columns = {name: logits[:, place] for place, name in enumerate(bundle.heads)}
    narrow = np.concatenate(([False], matched)) & (len(reason.spans) > 0)
    points = any(span[1] - span[0] < unit.span[1] - unit.span[0] for span in reason.spans)
    for name, value in unit.logits.items():
        if name not in bundle.heads:  # a match gives way with its words
            columns[name] = np.where(narrow & points, -MAX_LOGIT, np.full(rows, value))
    return np.asarray(logit(bundle.risks(columns, reason.stage)[reason.rule]))


# ---------------------------------------------------------------------------------------------------- counterfactual


def _counterfactual(judge: _Judge, passage: Passage, explanation: Explanation) -> Counterfactual | None:
    """Take out the most relevant words one after the other until the text passes, then put back what was not needed."""
    total: dict[Span, float] = {}
    for rule in explanation.rules:
        for word in rule.words:
            if word.relevance > 0:
                total[word.span] = total.get(word.span, 0.0) + word.relevance
    order = sorted(total, key=lambda span: -total[span])[:MOST_REMOVED]
    enough = Action.FLAG if explanation.action > Action.FLAG else Action.ALLOW
    tried = [tuple(sorted(order[:count])) for count in range(1, len(order) + 1)]
    found = _first(judge, passage, tried, enough)
    while found is not None and len(found.spans) > 1:
        fewer = [tuple(span for span in found.spans if span != left) for left in found.spans]
        smaller = _first(judge, passage, fewer, enough)
        if smaller is None:
            break
        found = smaller
    return found


def _first(
    judge: _Judge, passage: Passage, removals: Sequence[tuple[Span, ...]], enough: Action
) -> Counterfactual | None:
    texts = [_without(passage.text, spans) for spans in removals]
    kept = [(spans, text) for spans, text in zip(removals, texts, strict=True) if text.strip()]
    verdicts = judge.judge([replace(passage, text=text) for _, text in kept])
    for (spans, text), verdict in zip(kept, verdicts, strict=True):
        judgement = verdict.judgement
        if judgement.action <= enough:
            removed = tuple(passage.text[slice(*span)] for span in spans)
            return Counterfactual(spans, removed, text, judgement.action, judgement.risk)
    return None


def _without(text: str, spans: Sequence[Span]) -> str:
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + text[end:]
    return _SPACES.sub(" ", text).strip()
