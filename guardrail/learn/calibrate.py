"""Platt scaling (Platt 1999) folded into weight and bias: p = sigmoid(a (w @ x + b) + c)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from guardrail.errors import DataError
from guardrail.learn.dataset import Dataset
from guardrail.learn.logistic import Floats, Linear
from guardrail.learn.weighting import TEMPER

PRIOR = 0.15
"""Share of positive weight in the calibration mixture: moderation data and everyday texts, half and half."""


def calibration_weights(data: Dataset, y: Floats, prior: float = PRIOR, temper: float = TEMPER) -> Floats:
    """(N,) weights: sources of n rows count as n^(1 - temper), positives sum to `prior` and negatives to the rest.

    Args:
        data: N rows; their own weights count too.
        y: (N,) labels in [0, 1].
        prior: share of positives.
        temper: see `guardrail.learn.weighting`.

    Raises:
        DataError: one class is missing.
    """
    return mixture_weights(data.sources, data.weights, y, prior, temper)


def mixture_weights(
    sources: npt.NDArray[np.str_], emphasis: Floats, y: Floats, prior: float = PRIOR, temper: float = TEMPER
) -> Floats:
    """As `calibration_weights`, of (N,) sources and (N,) weights of the rows."""
    names, number = np.unique(sources, return_inverse=True)
    totals = np.bincount(number, minlength=len(names)).astype(np.float64)
    base = np.power(totals, -temper)[number] * emphasis
    up, down = base * y, base * (1.0 - y)
    if not up.sum() or not down.sum():
        raise DataError("calibration needs positive and negative rows, and one class is missing")
    return np.asarray(up * (prior / up.sum()) + down * ((1.0 - prior) / down.sum()))


def platt(logits: Floats, y: Floats, weight: Floats) -> tuple[float, float]:
    """Return (a, c) that minimise the weighted log loss of sigmoid(a logit + c) by Newton's method.

    Targets are smoothed as in the paper, so that separable data do not give infinite slopes.

    Args:
        logits: (N,) uncalibrated.
        y: (N,) labels in [0, 1].
        weight: (N,) positive.

    Raises:
        DataError: the logits rank the rows worse than chance, so no calibration can help.
    """
    positives, negatives = float(y.sum()), float((1 - y).sum())
    target = y * (positives + 1) / (positives + 2) + (1 - y) / (negatives + 2)
    scale = float(np.std(logits)) or 1.0
    features = np.stack([logits / scale, np.ones_like(logits)], axis=1)
    share = weight / weight.sum()
    solution = np.zeros(2)
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-np.clip(features @ solution, -30, 30)))
        gradient = features.T @ (share * (p - target))
        hessian = (features * (share * np.maximum(p * (1 - p), 1e-9))[:, None]).T @ features + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        solution = solution - step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-8:
            break
    if solution[0] <= 0:
        raise DataError("on the calibration rows the head ranks worse than chance; check the labels")
    return float(solution[0] / scale), float(solution[1])


def fold(linear: Linear, a: float, c: float) -> Linear:
    """Return the linear map whose logit is the calibrated one."""
    return Linear(linear.weight * a, linear.bias * a + c)
