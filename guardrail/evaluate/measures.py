"""Small measures that the evaluations of generated text share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def mean_with_interval(values: npt.ArrayLike, resamples: int = 1000) -> dict[str, float]:
    """Mean with a 95% percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13); values (N,), N > 0."""
    numbers = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    means = [numbers[rng.integers(len(numbers), size=len(numbers))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(numbers.mean()), "low": float(low), "high": float(high)}
