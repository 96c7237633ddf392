"""What the judge works on and what it returns: passages on their way, the stretches judged of them, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from guardrail.types import Evidence, Judgement, Passage, Score, Span

__all__ = ["Unit", "Verdict", "Work", "checked", "value_in"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A stretch of a text that was judged by itself, with the risk of every rule and the score of every classifier."""

    span: Span
    risks: Mapping[str, float]
    logits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement, and what is behind it: the units judged, and the spans that patterns matched for rules that act.

    `labels` says of some matches what stands there, "email" for instance.
    """

    judgement: Judgement
    units: tuple[Unit, ...] = ()
    matches: tuple[Span, ...] = ()
    labels: Mapping[Span, str] = field(default_factory=dict)
    evidence: Evidence | None = None


@dataclass(slots=True)
class Work:
    """One passage on its way through the judge."""

    passage: Passage
    spans: list[Span]  # sentences, in the original text
    scores: dict[str, Score] = field(default_factory=dict)  # classifiers that are not linear
    failures: dict[str, str] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)
    rows: list[tuple[int, np.ndarray]] = field(default_factory=list)  # rows per unit, their vectors; if they are kept


def checked(score: Score) -> Score:
    """Return the score.

    Raises:
        ValueError: it is not in [0, 1], or not a number.
    """
    if not 0.0 <= score.value <= 1.0:
        raise ValueError(f"it gave the score {score.value!r}, which is not in [0, 1]")
    return score


def value_in(score: Score, span: Span) -> float:
    """A score with spans holds only where they are; one without holds everywhere."""
    if not score.spans or any(start < span[1] and end > span[0] for start, end in score.spans):
        return score.value
    return 0.0
