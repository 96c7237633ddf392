"""Move a head by people's votes: not far, and no single reviewer further than a stated bound.

With x~ = (x, 1) for the unit vector x of a text, d the change of (weight, bias) and l0 the logit of the head as it
is, d minimises

    sum_r k_r sum_i log(1 + exp(-s_ri (l0_i + d . x~_i)))  +  lambda / 2 |d|^2  +  mu / 2 mean_j (d . x~_j)^2

over the votes s_ri in {-1, +1} of reviewers r: maximum a posteriori with the head as it is as the prior's mean. The last
term, over texts that must stay as they are (the anchor), is left out where there are none. Votes are summed, so those that
agree weigh more, and those that disagree pull towards doubt. k_r = min(1, cap / votes of r) limits a reviewer's weight.

The bound. Each vote's gradient is at most |x~| = sqrt(2), so a reviewer's is at most sqrt(2) cap in all. The rest of the
objective is lambda-strongly convex, so taking one reviewer away moves the minimiser by at most sqrt(2) cap / lambda (a
standard argument; Bousquet & Elisseeff, Stability and Generalization, JMLR 2002, section 5), and the logit of any text by
at most sqrt(2) times that: 2 cap / lambda. `lambda` is set so that this is `bound`, whatever that reviewer says, and how
often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail.learn.feedback import Vote

__all__ = ["Limits", "Moved", "largest_change", "loss", "move", "vote_weights"]

Floats = npt.NDArray[np.floating]
STEPS = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """How far votes may move a head.

    Attributes:
        bound: logits by which one reviewer can change the score of any text, at most.
        cap: votes that one reviewer's votes together weigh, at most.
        anchor: mu; how strongly the texts of the anchor hold the head.
    """

    bound: float = 0.5
    cap: float = 10.0
    anchor: float = 50.0

    @property
    def ridge(self) -> float:
        """lambda."""
        return 2.0 * self.cap / self.bound


@dataclass(frozen=True, eq=False)
class Moved:
    """The change of a head: weight (d,) and bias to add, float64."""

    weight: Floats
    bias: float

    def logits(self, x: Floats) -> Floats:
        """(N, d) to (N,): what is added to the logits."""
        return np.asarray(x @ self.weight + self.bias)


def vote_weights(votes: Sequence[Vote], cap: float) -> Floats:
    """Return k_r for each vote: 1, or less where its reviewer has cast more than `cap` votes."""
    cast = Counter(vote.reviewer for vote in votes)
    return np.array([min(1.0, cap / cast[vote.reviewer]) for vote in votes])


def move(
    x: Floats, logits: Floats, values: Floats, weights: Floats, limits: Limits, anchor: Floats | None = None
) -> Moved:
    """Return the change that the votes ask for, by Newton's method.

    Args:
        x: (N, d) unit vectors of the texts.
        logits: (N,) of the head as it is.
        values: (N,) 1.0 or 0.0.
        weights: (N,) from `vote_weights`.
        limits: how far.
        anchor: (M, d) unit vectors of texts that should keep their scores.
    """
    wide = np.hstack([x, np.ones((len(x), 1))]).astype(np.float64)
    fixed = np.eye(wide.shape[1]) * limits.ridge
    if anchor is not None and len(anchor):
        held = np.hstack([anchor, np.ones((len(anchor), 1))]).astype(np.float64)
        fixed += limits.anchor * (held.T @ held) / len(held)
    change = np.zeros(wide.shape[1])

    def objective(at: Floats) -> float:
        return loss(logits + wide @ at, values, weights, mean=False) + 0.5 * float(at @ fixed @ at)

    best = objective(change)
    for _ in range(STEPS):
        p = _sigmoid(logits + wide @ change)
        gradient = wide.T @ (weights * (p - values)) + fixed @ change
        hessian = (wide * (weights * p * (1.0 - p))[:, None]).T @ wide + fixed
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while objective(change - size * step) > best and size > 1e-6:
            size /= 2.0
        change = change - size * step
        now = objective(change)
        if best - now <= 1e-12 * max(1.0, abs(best)):
            break
        best = now
    return Moved(change[:-1], float(change[-1]))


def largest_change(one: Moved, other: Moved | None = None) -> float:
    """Return how far the logits of any unit vector can lie apart under two changes (or one and none)."""
    weight = one.weight - (0.0 if other is None else other.weight)
    bias = one.bias - (0.0 if other is None else other.bias)
    return float(np.linalg.norm(weight) + abs(bias))


def loss(logits: Floats, values: Floats, weights: Floats, *, mean: bool = True) -> float:
    """Return the weighted log loss, nats per vote (or their sum)."""
    each = np.logaddexp(0.0, np.where(values >= 0.5, -logits, logits))
    total = float(weights @ each)
    return total / float(weights.sum()) if mean else total


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))))
