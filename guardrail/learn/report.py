"""What a trained head can do, in figures that a model card may state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guardrail.evaluate.metrics import METRICS, RESAMPLES, Estimate, Floats, Ranking, evaluate_scores, quick_auroc
from guardrail.learn.calibrate import calibration_weights
from guardrail.learn.dataset import Dataset
from guardrail.learn.train import MIN_LEFT_OUT, Plan, Trained
from guardrail.policy.bundle import LinearHead

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one head on the rows of one split.

    Attributes:
        split: "test", or "dev" where there are no test rows.
        n: rows with a decided label; positives: those above 0.5.
        metrics: over all these rows, and `ece_balanced` over the mixture that the head was calibrated for.
        by_source: source to (rows, positives, AUROC) where it has 20 rows of either class.
        false_positives: source without any positive to (rows, share at or over 0.5).
        left_out: source to its AUROC under a fit that never saw it.
    """

    split: str
    n: int
    positives: int
    metrics: dict[str, Estimate]
    by_source: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    false_positives: dict[str, tuple[int, float]] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything, rounded to four places."""
        return {
            "split": self.split,
            "n": self.n,
            "positives": self.positives,
            **{name: rounded(estimate.value) for name, estimate in self.metrics.items()},
            "intervals": {
                name: [rounded(estimate.low), rounded(estimate.high)]
                for name, estimate in self.metrics.items()
                if estimate.low is not None
            },
            "by_source": {
                source: {"n": n, "positives": positives, "auroc": rounded(value)}
                for source, (n, positives, value) in self.by_source.items()
            },
            "false_positives": {
                source: {"n": n, "share": rounded(share)} for source, (n, share) in self.false_positives.items()
            },
            "left_out": {source: rounded(value) for source, value in self.left_out.items()},
        }


def rounded(value: float | None) -> float | None:
    """Four places are more than the intervals support."""
    return None if value is None else round(value, 4)


def report(trained: Trained, data: Dataset, plan: Plan | None = None, resamples: int = RESAMPLES) -> Report:
    """Measure a head on the test rows of `data` that know it; on the dev rows where there are none.

    Args:
        trained: the head.
        data: rows of any split.
        plan: how it was trained (its seed and prior), the default plan if None.
        resamples: for the intervals.
    """
    plan = plan or Plan()
    head = trained.head
    labels = data.labels(head.name)
    decided = ~np.isnan(labels) & (labels != 0.5)
    split = "test" if (decided & (data.splits == "test")).any() else "dev"
    part = data.subset(decided & (data.splits == split))
    y = part.labels(head.name) > 0.5
    scores = probabilities(part, head)
    metrics = evaluate_scores(scores, y, resamples=resamples, seed=plan.seed)
    if 0 < y.sum() < len(y):
        weight = calibration_weights(part, y.astype(np.float64), plan.prior)
        metrics["ece_balanced"] = Estimate(balanced_ece(scores, y, weight))
    by_source, clean = _by_source(part.sources, scores, y)
    return Report(split, len(y), int(y.sum()), metrics, by_source, clean, trained.left_out)


def probabilities(data: Dataset, head: LinearHead) -> Floats:
    """(N,) probabilities of the rows: each that of its worst window."""
    logits = data.largest(data.x @ head.weight + head.bias)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30))))


def balanced_ece(scores: Floats, y: np.ndarray, weight: Floats) -> float:
    """Expected calibration error under row weights."""
    order = np.argsort(-scores, kind="stable")
    return Ranking(scores, y).ece(weight[order])


def _by_source(
    sources: np.ndarray, scores: Floats, y: np.ndarray
) -> tuple[dict[str, tuple[int, int, float]], dict[str, tuple[int, float]]]:
    ranked: dict[str, tuple[int, int, float]] = {}
    clean: dict[str, tuple[int, float]] = {}
    for source in np.unique(sources):
        rows = sources == source
        positives, n = int(y[rows].sum()), int(rows.sum())
        value = quick_auroc(scores[rows], y[rows])
        if value is not None and min(positives, n - positives) >= MIN_LEFT_OUT:
            ranked[str(source)] = (n, positives, value)
        if not positives and n >= MIN_LEFT_OUT:
            clean[str(source)] = (n, float((scores[rows] >= THRESHOLD).mean()))
    return ranked, clean


def mean_and_interval(estimate: Estimate) -> str:
    """`0.912 (0.905 to 0.919)`, or why there is none."""
    if estimate.value is None:
        return estimate.reason
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


__all__ = ["METRICS", "Report", "balanced_ece", "mean_and_interval", "probabilities", "report", "rounded"]
