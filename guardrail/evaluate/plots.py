"""Three pictures of a head: precision and recall, reliability, and how scores are spread. Needs the extra `plots`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ConfigurationError
from guardrail.evaluate.metrics import ECE_BINS, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_head"]

HARMFUL, HARMLESS = "#b2182b", "#2166ac"


def plot_head(path: Path, name: str, scores: Floats, positive: npt.NDArray[np.bool_]) -> None:
    """Write a PNG with the precision-recall curve, the reliability diagram and the histogram of both classes.

    Args:
        path: the file.
        name: title.
        scores: (N,) probabilities in [0, 1].
        positive: (N,) bool; both classes must be there.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "plots need matplotlib; install it with: pip install 'guardrail-dglm[plots]'"
        ) from error

    figure = Figure(figsize=(12, 4), layout="constrained")
    axes: Any = figure.subplots(1, 3)
    _precision_recall(axes[0], scores, positive)
    _reliability(axes[1], scores, positive)
    _histogram(axes[2], scores, positive)
    figure.suptitle(f"{name}: {len(scores):,} texts, {int(positive.sum()):,} positive")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _precision_recall(axes: Axes, scores: Floats, positive: npt.NDArray[np.bool_]) -> None:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    axes.step(recall, precision, where="post", color=HARMFUL)
    axes.axhline(float(positive.mean()), color="grey", linestyle=":", label="by chance")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall")
    axes.legend(loc="lower left")


def _reliability(axes: Axes, scores: Floats, positive: npt.NDArray[np.bool_]) -> None:
    bins = np.clip((scores * ECE_BINS).astype(int), 0, ECE_BINS - 1)
    count = np.bincount(bins, minlength=ECE_BINS)
    filled = count > 0
    stated = np.bincount(bins, scores, minlength=ECE_BINS)[filled] / count[filled]
    observed = np.bincount(bins, positive, minlength=ECE_BINS)[filled] / count[filled]
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    axes.scatter(stated, observed, s=10 + 190 * count[filled] / count.max(), color=HARMFUL, alpha=0.7)
    axes.set(xlabel="stated probability", ylabel="share that is positive", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Reliability (size: how many texts)")


def _histogram(axes: Axes, scores: Floats, positive: npt.NDArray[np.bool_]) -> None:
    edges = np.linspace(0, 1, 26).tolist()
    for rows, colour, label in ((~positive, HARMLESS, "negative"), (positive, HARMFUL, "positive")):
        weights = np.full(int(rows.sum()), 1 / max(1, int(rows.sum())))
        axes.hist(scores[rows], bins=edges, weights=weights, color=colour, alpha=0.55, label=label)
    axes.set(xlabel="probability", ylabel="share of the class", title="Scores")
    axes.set_yscale("log")
    axes.legend()
