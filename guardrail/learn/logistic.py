"""Logistic regression that is told what not to look at.

The penalty is quadratic, w' (I + a S + b D) w / (2 C), with two nuisance covariances in embedding space:

- S, the scatter of source means within each class: directions in which data sets differ although their labels agree
  (within-class covariance normalisation, Hatch et al., Interspeech 2006). A head that uses them learns a data set's
  style, and fails on the next one.
- D, the mean outer product of differences between sentences that differ only in the group of people that they name
  (counterfactual logit pairing, Garg et al., AIES 2019, in closed form for a linear model).

With A = (I + a S + b D)^(-1/2) this is ordinary ridge logistic regression on A x, folded back as w = A w'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail.learn.weighting import Examples

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strength:
    """Hyperparameters of one fit: C of scikit-learn's logistic regression, and how much either nuisance is punished."""

    C: float = 3.0
    style: float = 10.0
    identity: float = 10.0


@dataclass(frozen=True, eq=False)
class Linear:
    """weight (d,) and bias: logit = weight @ x + bias."""

    weight: Floats
    bias: float

    def logits(self, x: npt.NDArray[np.floating]) -> Floats:
        """(M, d) to (M,)."""
        return np.asarray(x @ self.weight + self.bias, dtype=np.float64)


def style_scatter(x: npt.NDArray[np.floating], groups: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """(d, d) scatter of group means around their class mean, of unit mean eigenvalue (trace d); zeros for one group.

    Small groups count less: a mean of few rows is far from the class mean by chance.
    """
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    classes = np.asarray(y)
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for value in (0, 1):
        rows = np.flatnonzero(classes == value)
        if not rows.size:
            continue
        totals = np.bincount(number[rows], minlength=len(names)).astype(np.float64)
        sums = _grouped_sum(x[rows], number[rows], len(names))
        means = sums / np.maximum(totals, 1.0)[:, None]
        trust = totals / (totals + 50.0)
        centre = trust @ means / max(trust.sum(), 1e-12)
        apart = (means - centre) * np.sqrt(trust)[:, None]
        scatter += apart.T @ apart
    return normalised(scatter)


def _grouped_sum(x: npt.NDArray[np.floating], number: np.ndarray, groups: int) -> Floats:
    from scipy.sparse import csr_matrix

    member = csr_matrix((np.ones(len(number)), (number, np.arange(len(number)))), shape=(groups, len(number)))
    return np.asarray(member @ x.astype(np.float64))


def normalised(scatter: Floats) -> Floats:
    """Scale a covariance to trace d; zeros stay zeros."""
    trace = float(np.trace(scatter))
    return scatter * (len(scatter) / trace) if trace > 1e-12 else scatter


def fit(
    x: npt.NDArray[np.floating], data: Examples, strength: Strength, style: Floats | None, identity: Floats | None
) -> Linear:
    """Fit on windows `x[data.index]`.

    Args:
        x: (M, d) embeddings.
        data: K weighted examples, both classes among them.
        strength: hyperparameters.
        style: (d, d) from `style_scatter`, or None.
        identity: (d, d) from `guardrail.learn.invariance`, or None.
    """
    from sklearn.linear_model import LogisticRegression

    shrink = _inverse_root(x.shape[1], strength, style, identity)
    model = LogisticRegression(C=strength.C, solver="newton-cholesky", max_iter=50, tol=1e-4)
    model.fit((x[data.index] @ shrink.astype(x.dtype)).astype(np.float64), data.y, sample_weight=data.weight)
    return Linear(shrink @ model.coef_[0].astype(np.float64), float(model.intercept_[0]))


def _inverse_root(d: int, strength: Strength, style: Floats | None, identity: Floats | None) -> Floats:
    penalty = np.eye(d)
    if style is not None:
        penalty += strength.style * style
    if identity is not None:
        penalty += strength.identity * identity
    values, vectors = np.linalg.eigh(penalty)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)
