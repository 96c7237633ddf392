"""Logistic regression that is told not to look at groups of people.

The penalty is quadratic, w' (I + b D) w / (2 C), where D is the mean outer product of differences between sentences
that differ only in the group that they name (counterfactual logit pairing, Garg et al., AIES 2019, in closed form for
a linear model). With A = (I + b D)^(-1/2) this is ordinary ridge logistic regression on A x, folded back as w = A w'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail.learn.weighting import Examples

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strength:
    """Hyperparameters of one fit: C of scikit-learn's logistic regression, and b, the weight of named groups."""

    C: float = 0.1
    identity: float = 3.0


@dataclass(frozen=True, eq=False)
class Linear:
    """weight (d,) and bias: logit = weight @ x + bias."""

    weight: Floats
    bias: float

    def logits(self, x: npt.NDArray[np.floating]) -> Floats:
        """(M, d) to (M,)."""
        return np.asarray(x @ self.weight + self.bias, dtype=np.float64)


def normalised(scatter: Floats) -> Floats:
    """Scale a covariance to trace d; zeros stay zeros."""
    trace = float(np.trace(scatter))
    return scatter * (len(scatter) / trace) if trace > 1e-12 else scatter


def fit(x: npt.NDArray[np.floating], data: Examples, strength: Strength, identity: Floats | None = None) -> Linear:
    """Fit on windows `x[data.index]`.

    Args:
        x: (M, d) embeddings.
        data: K weighted examples, both classes among them.
        strength: hyperparameters.
        identity: (d, d) from `guardrail.learn.invariance`, or None.
    """
    from sklearn.linear_model import LogisticRegression

    shrink = (
        np.eye(x.shape[1]) if identity is None else _inverse_root(np.eye(x.shape[1]) + strength.identity * identity)
    )
    model = LogisticRegression(C=strength.C, solver="newton-cholesky", max_iter=50, tol=1e-4)
    model.fit((x[data.index] @ shrink.astype(x.dtype)).astype(np.float64), data.y, sample_weight=data.weight)
    return Linear(shrink @ model.coef_[0].astype(np.float64), float(model.intercept_[0]))


def _inverse_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)
