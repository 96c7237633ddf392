"""Everything that is worth knowing of a head on labelled texts: overall, by source, group, length and disguise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import DataError
from guardrail.evaluate.bias import BiasReport, groups_named, measure_bias
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.evaluate.disguise import KINDS, disguise
from guardrail.evaluate.metrics import RESAMPLES, Estimate, Floats, evaluate_scores

__all__ = ["LENGTHS", "HeadSuite", "Scorer", "Slice", "measure"]

Scorer = Callable[[Sequence[LabelledText]], Mapping[str, Floats]]
"""N labelled texts to head: (N,) probabilities."""

LENGTHS = (("up to 50 characters", 50), ("51 to 150", 150), ("151 to 400", 400), ("more than 400", 10**9))
MIN_SIDE = 10
"""A slice with fewer rows of either class gets no figures of ranking."""
DISGUISED_ROWS = 500
"""Positives, and as many negatives, that are disguised and scored again, at most."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the rows: how many, how many positive, the metrics where both classes are there, what is flagged.

    `recall` is the share of the positive rows, `false_positives` that of the negative ones, at or over the threshold.
    """

    n: int
    positives: int
    metrics: Mapping[str, Estimate]
    recall: float | None
    false_positives: float | None

    def as_json(self) -> dict[str, Any]:
        """Counts, `metric: {value, low, high}`, recall and false positives."""
        return {
            "n": self.n,
            "positives": self.positives,
            **{name: estimate.as_json() for name, estimate in self.metrics.items()},
            "recall": self.recall,
            "false_positives": self.false_positives,
        }


@dataclass(frozen=True, eq=False)
class HeadSuite:
    """All figures of one head.

    Attributes:
        name: the head.
        threshold: where recall and false positives are counted.
        overall: all rows that know the head.
        by_source, by_length: name to slice.
        bias: areas of the groups of people that texts name.
        by_disguise: kind, or "none", to the slice of the rows that were disguised.
        scores, positive: (N,) of the rows, for plots.
    """

    name: str
    threshold: float
    overall: Slice
    by_source: Mapping[str, Slice] = field(default_factory=dict)
    by_length: Mapping[str, Slice] = field(default_factory=dict)
    bias: BiasReport = field(default_factory=lambda: BiasReport(None, {}))
    by_disguise: Mapping[str, Slice] = field(default_factory=dict)
    scores: Floats = field(default_factory=lambda: np.empty(0))
    positive: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))

    def as_json(self) -> dict[str, Any]:
        """Everything but the scores."""
        return {
            "threshold": self.threshold,
            "overall": self.overall.as_json(),
            "by_source": {name: part.as_json() for name, part in self.by_source.items()},
            "by_length": {name: part.as_json() for name, part in self.by_length.items()},
            "identity": self.bias.as_json(),
            "by_disguise": {name: part.as_json() for name, part in self.by_disguise.items()},
        }


def measure(
    rows: Sequence[LabelledText],
    heads: Sequence[str],
    scorer: Scorer,
    *,
    threshold: float = 0.5,
    disguised: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, HeadSuite]:
    """Measure every head on the rows that know it (a label of exactly 0.5 is undecided).

    Args:
        rows: labelled texts.
        heads: names of labels that `scorer` predicts.
        scorer: gives the probabilities; called once for all rows, and once more for each kind of disguise.
        threshold: where recall and false positives are counted.
        disguised: whether some of the rows are disguised and scored again.
        resamples: for the intervals; slices get a fifth of them.
        seed: of every draw.

    Raises:
        DataError: no row knows any of the heads.
    """
    known = {name: ~np.isnan(labels_of(rows, name)) & (labels_of(rows, name) != 0.5) for name in heads}
    if not any(mask.any() for mask in known.values()):
        raise DataError(f"no row has a label for {', '.join(heads)}; heads can be measured only where labels are known")
    scores = scorer(rows)
    lengths = np.searchsorted([limit for _, limit in LENGTHS], [len(row.text) for row in rows])
    sources = np.array([row.source for row in rows])
    named = [groups_named(row) for row in rows]
    again = _disguised(rows, heads, known, scorer, seed) if disguised else {}
    found: dict[str, HeadSuite] = {}
    for name in heads:
        keep = np.flatnonzero(known[name])
        part, positive = np.asarray(scores[name])[keep], labels_of(rows, name)[keep] > 0.5
        judged = _Judged(part, positive, threshold, resamples, seed)
        found[name] = HeadSuite(
            name=name,
            threshold=threshold,
            overall=judged.slice(np.ones(len(keep), dtype=bool), resamples),
            by_source={str(source): judged.slice(sources[keep] == source) for source in np.unique(sources[keep])},
            by_length={
                title: judged.slice(lengths[keep] == place)
                for place, (title, _) in enumerate(LENGTHS)
                if (lengths[keep] == place).any()
            },
            bias=measure_bias(part, positive, [named[row] for row in keep]),
            by_disguise={
                kind: _Judged(values[name], truth[name], threshold, resamples, seed).all()
                for kind, (values, truth) in again.items()
                if len(truth[name])
            },
            scores=part,
            positive=positive,
        )
    return found


@dataclass(frozen=True, slots=True)
class _Judged:
    """Scores beside the truth, to be cut into slices."""

    scores: Floats
    positive: npt.NDArray[np.bool_]
    threshold: float
    resamples: int
    seed: int

    def all(self) -> Slice:
        return self.slice(np.ones(len(self.scores), dtype=bool))

    def slice(self, rows: npt.NDArray[np.bool_], resamples: int | None = None) -> Slice:
        scores, positive = self.scores[rows], self.positive[rows]
        hits = int(positive.sum())
        enough = min(hits, len(positive) - hits) >= MIN_SIDE
        count = self.resamples // 5 if resamples is None else resamples
        metrics = evaluate_scores(scores, positive, resamples=count, seed=self.seed) if enough else {}
        flagged = scores >= self.threshold
        return Slice(
            n=len(positive),
            positives=hits,
            metrics=metrics,
            recall=float(flagged[positive].mean()) if hits else None,
            false_positives=float(flagged[~positive].mean()) if hits < len(positive) else None,
        )


def _disguised(
    rows: Sequence[LabelledText],
    heads: Sequence[str],
    known: Mapping[str, npt.NDArray[np.bool_]],
    scorer: Scorer,
    seed: int,
) -> dict[str, tuple[dict[str, Floats], dict[str, npt.NDArray[np.bool_]]]]:
    """Kind to the scores and the truth of each head on a draw of the rows, disguised in that way ("none": not)."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[int]] = {}
    for name in heads:
        labels = labels_of(rows, name)
        sides = [np.flatnonzero(known[name] & (labels > 0.5)), np.flatnonzero(known[name] & (labels < 0.5))]
        drawn[name] = [row for side in sides for row in rng.permutation(side)[:DISGUISED_ROWS].tolist()]
    wanted = sorted({row for members in drawn.values() for row in members})
    place = {row: number for number, row in enumerate(wanted)}
    found = {}
    for kind, texts in _variants([rows[row] for row in wanted]):
        scores = scorer(texts)
        values = {name: np.asarray(scores[name])[[place[row] for row in drawn[name]]] for name in heads}
        found[kind] = (values, {name: labels_of([rows[row] for row in drawn[name]], name) > 0.5 for name in heads})
    return found


def _variants(rows: Sequence[LabelledText]) -> Iterator[tuple[str, list[LabelledText]]]:
    yield "none", list(rows)
    for kind in KINDS:
        yield kind, [replace(row, text=disguise(row.text, kind), spans=()) for row in rows]
