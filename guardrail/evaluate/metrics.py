"""Metrics of scores against binary labels, each with a bootstrap interval.

Point values are scikit-learn's (AUROC, average precision) or follow from the ranking. Intervals are percentile
bootstrap (Efron & Tibshirani 1993, chapter 13): rows are drawn with replacement, so that a resample is a vector of
integer weights, and each metric is computed on the ranking, sorted once, under those weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1_000
ECE_BINS = 15
METRICS = ("auroc", "auprc", "recall_at_1pct_fpr", "ece", "brier")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval. All three are None where the data cannot support it: then `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def as_json(self) -> dict[str, float | str | None]:
        """Return `{"value", "low", "high"}`, and `reason` where there is no value."""
        document: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        return document | ({"reason": self.reason} if self.reason else {})


class Ranking:
    """Probabilities of N texts sorted once, so that metrics under many row weights are cheap.

    Args:
        scores: (N,) probabilities in [0, 1].
        positive: (N,) bool.
    """

    def __init__(self, scores: npt.ArrayLike, positive: npt.ArrayLike) -> None:
        values = np.asarray(scores, dtype=np.float64)
        order = np.argsort(-values, kind="stable")
        self.scores = values[order]
        self.positive = np.asarray(positive, dtype=bool)[order]
        self.ends = np.flatnonzero(np.diff(self.scores, append=-np.inf) != 0)  # last row of each run of ties
        self.bins = np.clip((self.scores * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)

    def __len__(self) -> int:
        return len(self.scores)

    def counts(self, weight: Floats) -> tuple[Floats, Floats]:
        """Weighted positives and negatives at or above each distinct score, highest score first."""
        hits = np.cumsum(weight * self.positive)[self.ends]
        return hits, np.cumsum(weight)[self.ends] - hits

    def auroc(self, weight: Floats) -> float:
        """Area under the ROC curve: P(positive above negative) + P(tie) / 2."""
        hits, alarms = self.counts(weight)
        if not hits[-1] or not alarms[-1]:
            return np.nan
        heights = hits + np.concatenate(([0.0], hits[:-1]))
        return float(np.sum(np.diff(alarms, prepend=0.0) * heights) / (2 * hits[-1] * alarms[-1]))

    def auprc(self, weight: Floats) -> float:
        """Average precision: precision at each score, weighted by the recall that it adds."""
        hits, alarms = self.counts(weight)
        if not hits[-1] or not alarms[-1]:
            return np.nan
        flagged = np.maximum(hits + alarms, 1e-300)
        return float(np.sum(np.diff(hits, prepend=0.0) * hits / flagged) / hits[-1])

    def recall_at_1pct_fpr(self, weight: Floats) -> float:
        """Largest recall of a threshold that flags at most 1% of the negatives."""
        hits, alarms = self.counts(weight)
        if not hits[-1] or not alarms[-1]:
            return np.nan
        allowed = hits[alarms <= 0.01 * alarms[-1] + 1e-9]
        return float(allowed[-1] / hits[-1]) if allowed.size else 0.0

    def ece(self, weight: Floats) -> float:
        """Expected calibration error over 15 bins of equal width (Guo et al. 2017, section 2)."""
        gap = np.bincount(self.bins, weight * (self.scores - self.positive), minlength=ECE_BINS)
        return float(np.abs(gap).sum() / weight.sum())

    def brier(self, weight: Floats) -> float:
        """Mean squared distance of probability and outcome (Brier 1950): calibration and sharpness in one figure."""
        return float(weight @ np.square(self.scores - self.positive) / weight.sum())


def evaluate_scores(
    scores: npt.ArrayLike, positive: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Return every metric of `METRICS` with its interval; None with a reason where only one class is there.

    Args:
        scores: (N,) probabilities in [0, 1].
        positive: (N,) bool.
        resamples: bootstrap resamples; 0 gives no intervals.
        seed: of the resampling.
    """
    ranking = Ranking(scores, positive)
    hits = int(ranking.positive.sum())
    if hits in (0, len(ranking)):
        kind = "no row" if not len(ranking) else ("no positive row" if not hits else "no negative row")
        return {metric: Estimate(None, reason=f"{kind} is labelled") for metric in METRICS}
    functions: dict[str, Callable[[Floats], float]] = {metric: getattr(ranking, metric) for metric in METRICS}
    ones = np.ones(len(ranking))
    values = {metric: function(ones) for metric, function in functions.items()}
    values |= _sklearn(ranking)
    intervals = bootstrap(functions, len(ranking), resamples, seed)
    return {metric: Estimate(value, *intervals[metric]) for metric, value in values.items()}


def _sklearn(ranking: Ranking) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "auroc": float(roc_auc_score(ranking.positive, ranking.scores)),
        "auprc": float(average_precision_score(ranking.positive, ranking.scores)),
    }


def bootstrap(
    functions: dict[str, Callable[[Floats], float]], rows: int, resamples: int, seed: int
) -> dict[str, tuple[float | None, float | None]]:
    """Return 95% percentile intervals of functions of (N,) row weights; a resample that gives NaN is left out."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(resamples):
        weight = np.bincount(rng.integers(rows, size=rows), minlength=rows).astype(np.float64)
        for name, function in functions.items():
            drawn[name].append(function(weight))
    return {name: _interval(values) for name, values in drawn.items()}


def _interval(values: list[float]) -> tuple[float | None, float | None]:
    finite = np.array([value for value in values if not np.isnan(value)])
    if not finite.size:
        return None, None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


def quick_auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float | None:
    """AUROC without an interval; None where only one class is there."""
    ranking = Ranking(scores, positive)
    value = ranking.auroc(np.ones(len(ranking))) if len(ranking) else np.nan
    return None if np.isnan(value) else value
