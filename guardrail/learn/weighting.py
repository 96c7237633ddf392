"""How much each row and window counts, so that no data set's style dominates a head.

A source of n rows gets a total weight that grows as n^(1 - TEMPER) within each class, times what its rows ask for
(`weight` of a row). Soft labels count as both: share y as positive, 1 - y as negative. All negatives together weigh
`NEGATIVES` times as much as all positives: most texts are harmless, and a head is of use only where it rarely errs on
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guardrail.learn.dataset import Dataset, Floats

TEMPER = 0.5
NEGATIVES = 4.0
TOTAL = 10_000.0
"""Weights sum to this, so that the strength of the penalty means the same for every head."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What a weighted logistic regression is fitted on; a row or window may occur on both sides.

    Attributes:
        index: (K,) windows of the dataset.
        y: (K,) 0 or 1.
        weight: (K,) positive.
    """

    index: np.ndarray
    y: np.ndarray
    weight: np.ndarray


def row_weights(
    sources: np.ndarray, y: Floats, temper: float = TEMPER, emphasis: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return (N,) positive and (N,) negative weights of N rows; together they sum to `TOTAL`.

    Args:
        sources: (N,) names.
        y: (N,) labels in [0, 1], none unknown.
        temper: 0 counts rows as they are, 1 gives every source the same total.
        emphasis: (N,) what the rows ask for, all 1 if None.
    """
    ask = np.ones(len(y)) if emphasis is None else emphasis
    share = TOTAL / (1.0 + NEGATIVES)
    return _side(sources, y, temper, ask) * share, _side(sources, 1.0 - y, temper, ask) * share * NEGATIVES


def _side(sources: np.ndarray, mass: Floats, temper: float, ask: Floats) -> Floats:
    names, number = np.unique(sources, return_inverse=True)
    totals = np.bincount(number, mass, minlength=len(names))
    factor = np.power(np.maximum(totals, 1.0), -temper)
    weight = mass * factor[number] * ask
    return np.asarray(weight / (weight.sum() or 1.0))


def examples(data: Dataset, y: Floats, temper: float = TEMPER, responsibility: Floats | None = None) -> Examples:
    """Turn the rows whose label is known into weighted windows.

    A row's positive weight is spread over its marked windows, evenly or by `responsibility`; every window of a
    negative row is negative, and so is a window outside the spans of a positive one.

    Args:
        data: N rows, M windows.
        y: (N,) labels, NaN where unknown.
        temper: see `row_weights`.
        responsibility: (M,) share of each window in its row's positive label; marked windows of a row sum to 1.
    """
    known = ~np.isnan(y)
    label = np.where(known, y, 0.0)
    positive, negative = np.zeros(len(y)), np.zeros(len(y))
    positive[known], negative[known] = row_weights(data.sources[known], y[known], temper, data.weights[known])
    windows = np.bincount(data.owner, minlength=len(y))
    share = even_shares(data) if responsibility is None else responsibility
    # Each window of a clean text is evidence of its own, but windows of one text resemble each other.
    clean = np.power(np.maximum(windows, 1), -0.5)[data.owner]
    unit = np.divide(negative, 1.0 - label, out=np.zeros_like(label), where=label < 1.0)  # weight of a whole negative
    unit[unit == 0] = np.median(unit[unit > 0]) if (unit > 0).any() else 0.0
    up = positive[data.owner] * share
    down = np.where(data.marked, negative[data.owner], unit[data.owner] * known[data.owner]) * clean
    index = np.concatenate((np.flatnonzero(up > 0), np.flatnonzero(down > 0)))
    y_out = np.concatenate((np.ones(int((up > 0).sum())), np.zeros(int((down > 0).sum()))))
    weight = np.concatenate((up[up > 0], down[down > 0] * (negative.sum() / max(down.sum(), 1e-12))))
    return Examples(index, y_out, weight)


def even_shares(data: Dataset) -> Floats:
    """(M,) one over the number of marked windows of the row; 0 for the others."""
    marked = data.marked.astype(np.float64)
    counts = np.bincount(data.owner, marked, minlength=len(data.rows))
    return np.asarray(marked / np.maximum(counts, 1.0)[data.owner])


def responsibilities(data: Dataset, logits: Floats, temperature: float = 1.0) -> Floats:
    """(M,) softmax of the window logits over the marked windows of each row: which window made the row positive."""
    values = np.where(data.marked, logits / temperature, -np.inf)
    best = np.full(len(data.rows), -np.inf)
    np.maximum.at(best, data.owner, values)
    safe = np.where(np.isfinite(best), best, 0.0)[data.owner]
    share = np.where(data.marked, np.exp(np.clip(logits / temperature - safe, -30, 0)), 0.0)
    totals = np.bincount(data.owner, share, minlength=len(data.rows))
    return np.asarray(share / np.maximum(totals, 1e-12)[data.owner])
