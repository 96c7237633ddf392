"""Choosing a rule's threshold from labelled texts: for a stated false-positive rate, or for stated costs of mistakes.

A rate is claimed only as far as the data carry it: the threshold is the lowest at which the one-sided 95% upper bound
of the false-positive rate (Clopper and Pearson, Biometrika 1934) stays within it. With n harmless texts no rate below
1 - 0.05^(1/n) can be claimed at all (about 3/n), whatever the scores. Intervals of recall, rate and threshold are 95%
percentile bootstrap over texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import DataError
from guardrail.evaluate.metrics import RESAMPLES, Estimate

__all__ = ["FEWEST", "Tuned", "needed_negatives", "tune_for_cost", "tune_for_rate", "upper_bound"]

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
FEWEST = 20
"""Texts of each kind below which nothing is claimed."""
HIGHEST = 0.999
"""No threshold above: it would have to be 1, which no risk has to reach."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A threshold and what it does on the texts it was chosen on.

    Attributes:
        threshold: in (0, 1), rounded up to four digits, with its interval.
        recall: share of violations at or above it.
        fpr: share of harmless texts at or above it.
        fpr_bound: one-sided 95% upper bound of `fpr`.
        positives, negatives: how many texts of each kind.
        cost: per text, under the costs that were stated; None for a rate.
    """

    threshold: Estimate
    recall: Estimate
    fpr: Estimate
    fpr_bound: float
    positives: int
    negatives: int
    cost: Estimate | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        document: dict[str, Any] = {
            name: getattr(self, name).as_json() for name in ("threshold", "recall", "fpr") if getattr(self, name)
        }
        document |= {"fpr_upper_bound": self.fpr_bound, "positives": self.positives, "negatives": self.negatives}
        return document | ({"cost": self.cost.as_json()} if self.cost else {})


def upper_bound(hits: int, total: int) -> float:
    """One-sided 95% upper bound of a share, from `hits` of `total`."""
    from scipy.stats import beta

    return 1.0 if hits >= total else float(beta.ppf(CONFIDENCE, hits + 1, total - hits))


def needed_negatives(rate: float) -> int:
    """Harmless texts that it takes to claim a false-positive rate, if none of them is flagged."""
    return math.ceil(math.log(1.0 - CONFIDENCE) / math.log1p(-rate))


def tune_for_rate(
    risks: npt.ArrayLike, positive: npt.ArrayLike, rate: float, *, resamples: int = RESAMPLES, seed: int = 0
) -> Tuned:
    """Return the lowest threshold whose false-positive rate is at most `rate` with 95% confidence.

    Args:
        risks: (N,) risks of a rule in [0, 1].
        positive: (N,) bool: violations.
        rate: in (0, 1).
        resamples: for the intervals; 0 gives none.
        seed: of the resampling.

    Raises:
        DataError: too few texts to claim that rate, or harmless texts with the highest risks make it unreachable.
    """
    if not 0 < rate < 1:
        raise DataError(f"the false-positive rate must lie between 0 and 1, both excluded; got {rate:g}")
    values, truth = _checked(risks, positive)
    clean = np.sort(values[~truth])[::-1]
    needed = needed_negatives(rate)
    if len(clean) < needed:
        raise DataError(
            f"{len(clean)} harmless texts cannot show a false-positive rate of {rate:g}: even if none is flagged it may "
            f"be {upper_bound(0, len(clean)):.2g}. It takes at least {needed:,} harmless texts, or a rate that is higher"
        )
    allowed = 0
    while upper_bound(allowed + 1, len(clean)) <= rate:
        allowed += 1
    threshold = _above(float(clean[allowed]))
    if threshold > HIGHEST:
        raise DataError(
            f"no threshold reaches a false-positive rate of {rate:g}: {int((clean >= HIGHEST).sum())} of {len(clean)} "
            "harmless texts have a risk of nearly 1. Look at them; the rule needs better classifiers, not a threshold"
        )

    def again(rows: npt.NDArray[np.int64]) -> tuple[float, float, float, float]:
        drawn, labels = values[rows], truth[rows]
        others = np.sort(drawn[~labels])[::-1]
        place = min(int(allowed / len(clean) * len(others)), len(others) - 1)
        return _above(float(others[place])), *_shares(drawn, labels, threshold), math.nan

    return _tuned(values, truth, threshold, None, _bootstrap(again, truth, resamples, seed))


def tune_for_cost(
    risks: npt.ArrayLike,
    positive: npt.ArrayLike,
    miss: float,
    alarm: float,
    prevalence: float | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Tuned:
    """Return the threshold of least expected cost per text.

    Args:
        risks: (N,) risks of a rule in [0, 1].
        positive: (N,) bool: violations.
        miss: cost of a violation that passes.
        alarm: cost of a harmless text that is flagged.
        prevalence: share of violations where the rule will work; default: that of these texts.
        resamples: for the intervals; 0 gives none.
        seed: of the resampling.

    Raises:
        DataError: costs that are not positive, too few texts, or a rule that is of no use at these costs: acting on
            nothing, or on everything, costs no more than the best threshold, as far as these texts can tell.
    """
    if not (miss > 0 and alarm > 0 and math.isfinite(miss + alarm)):
        raise DataError(f"costs must be above 0; got {miss:g} for a miss and {alarm:g} for a false alarm")
    values, truth = _checked(risks, positive)
    share = float(truth.mean()) if prevalence is None else prevalence
    if not 0 < share < 1:
        raise DataError(f"the share of violations must lie between 0 and 1, both excluded; got {share:g}")
    weights = (miss * share, alarm * (1.0 - share))
    threshold, cost = _cheapest(values, truth, weights)
    trivial = min(weights)  # nothing flagged, or everything

    def again(rows: npt.NDArray[np.int64]) -> tuple[float, float, float, float]:
        drawn, labels = values[rows], truth[rows]
        recall, fpr = _shares(drawn, labels, threshold)
        return _cheapest(drawn, labels, weights)[0], recall, fpr, weights[0] * (1 - recall) + weights[1] * fpr

    drawn = _bootstrap(again, truth, resamples, seed)
    most = float(np.percentile(drawn[:, 3], 97.5)) if len(drawn) else cost
    if most >= trivial:
        way = "nothing" if weights[0] < weights[1] else "everything"
        raise DataError(
            f"these {len(values)} texts cannot show that the rule is worth its mistakes: acting on {way} costs "
            f"{trivial:.3g} a text, and the best threshold {cost:.3g}, with a 95% interval up to {most:.3g}"
        )
    return _tuned(values, truth, threshold, cost, drawn)


def _checked(risks: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.bool_]]:
    values, truth = np.asarray(risks, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise DataError(f"expected one risk for each label; got shapes {values.shape} and {truth.shape}")
    if not np.all((values >= 0) & (values <= 1)):
        raise DataError("a risk is not in [0, 1]")
    for kind, count in (("violations", int(truth.sum())), ("harmless texts", int((~truth).sum()))):
        if count < FEWEST:
            raise DataError(f"{count} {kind} are too few to choose a threshold on; at least {FEWEST} are needed")
    return values, truth


def _above(risk: float) -> float:
    """The smallest threshold of four digits that a risk does not reach."""
    return (math.floor(risk * 10_000) + 1) / 10_000


def _shares(values: Floats, truth: npt.NDArray[np.bool_], threshold: float) -> tuple[float, float]:
    over = values >= threshold
    return float(over[truth].mean()), float(over[~truth].mean())


def _cheapest(values: Floats, truth: npt.NDArray[np.bool_], weights: tuple[float, float]) -> tuple[float, float]:
    """The threshold of least cost, in the middle of the gap between risks that it lies in, and the cost."""
    order = np.argsort(-values, kind="stable")
    ranked, hits = values[order], truth[order]
    misses = 1.0 - np.concatenate(([0.0], np.cumsum(hits))) / hits.sum()  # (N + 1,): the first k are flagged
    alarms = np.concatenate(([0.0], np.cumsum(~hits))) / (~hits).sum()
    cost = weights[0] * misses + weights[1] * alarms
    cut = np.concatenate(([True], ranked[1:] < ranked[:-1], [True]))  # never between equal risks
    best = int(np.argmin(np.where(cut, cost, np.inf)))
    upper = 1.0 if best == 0 else float(ranked[best - 1])
    lower = 0.0 if best == len(ranked) else float(ranked[best])
    return min(max(round((upper + lower) / 2, 6), 1e-4), HIGHEST), float(cost[best])


def _bootstrap(again: Any, truth: npt.NDArray[np.bool_], resamples: int, seed: int) -> Floats:
    """(R, 4) threshold, recall, fpr and cost of resamples in which both kinds of text occur."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = rng.integers(len(truth), size=len(truth))
        if 0 < truth[rows].sum() < len(truth):
            drawn.append(again(rows))
    return np.array(drawn, dtype=np.float64).reshape(-1, 4)


def _tuned(values: Floats, truth: npt.NDArray[np.bool_], threshold: float, cost: float | None, drawn: Floats) -> Tuned:
    recall, fpr = _shares(values, truth, threshold)

    def estimate(value: float, column: int) -> Estimate:
        if not len(drawn):
            return Estimate(value)
        low, high = np.percentile(drawn[:, column], [2.5, 97.5])
        return Estimate(value, float(low), float(high))

    negatives = int((~truth).sum())
    return Tuned(
        threshold=estimate(threshold, 0),
        recall=estimate(recall, 1),
        fpr=estimate(fpr, 2),
        fpr_bound=upper_bound(int(((values >= threshold) & ~truth).sum()), negatives),
        positives=int(truth.sum()),
        negatives=negatives,
        cost=None if cost is None else estimate(cost, 3),
    )
