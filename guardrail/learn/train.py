"""From labelled texts to one calibrated head, and what can be honestly said of it.

1. Choose the strength of the penalty by the mean of two figures: AUROC on sources left out, and on the dev rows.
2. Fit on the training rows; where positive rows have several windows, ask the fit which window made them positive and
   fit again (expectation maximisation for multiple instances, Zhang & Goldman 2001).
3. Calibrate on the dev rows by Platt scaling and fold it in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from guardrail.classifiers.linear import make_head
from guardrail.errors import DataError
from guardrail.evaluate.metrics import quick_auroc
from guardrail.learn.calibrate import PRIOR, calibration_weights, fold, platt
from guardrail.learn.dataset import Bools, Dataset, Floats
from guardrail.learn.logistic import Linear, Strength, fit
from guardrail.learn.weighting import TEMPER, examples, responsibilities
from guardrail.policy.bundle import LinearHead

GRID = tuple(Strength(C) for C in (0.1, 1.0, 10.0))
MIN_ROWS = 5
MIN_LEFT_OUT = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How heads are trained.

    Attributes:
        seed: of every draw.
        grid: strengths to choose from; one leaves nothing to choose.
        rounds: fits in all; those after the first know which window of a long text made it positive.
        temper: how far sources are levelled, see `guardrail.learn.weighting`.
        prior: share of positives in the calibration mixture.
        search_rows: rows that the choice of strength, and the fits with a source left out, are made on.
    """

    seed: int = 0
    grid: tuple[Strength, ...] = GRID
    rounds: int = 3
    temper: float = TEMPER
    prior: float = PRIOR
    search_rows: int = 20_000


@dataclass(frozen=True, eq=False)
class Trained:
    """A head and how it came about.

    Attributes:
        head: weight and bias, calibrated.
        strength: the chosen one.
        left_out: source to AUROC on it by a fit that never saw it.
        rows: (train, dev) rows used; positives: those among them with a label of at least 0.5.
    """

    head: LinearHead
    strength: Strength
    left_out: dict[str, float] = field(default_factory=dict)
    rows: tuple[int, int] = (0, 0)
    positives: tuple[int, int] = (0, 0)


def train_head(
    name: str, data: Dataset, encoder_sha256: str, identity: Floats | None = None, plan: Plan = Plan()
) -> Trained:
    """Train one head on the rows of `data` that know it.

    Args:
        name: the head.
        data: rows of the splits train and dev (others are ignored). Without dev rows a fifth of train is set aside.
        encoder_sha256: hash of the encoder that embedded `data`.
        identity: (d, d) from `guardrail.learn.invariance.identity_scatter`, or None.
        plan: how.

    Raises:
        DataError: too few rows of one class, or the head ranks the dev rows worse than chance.
    """
    train, dev = _parts(name, data, plan.seed)
    y = train.labels(name)
    strength, left_out = _choose(name, train, dev, identity, plan)
    linear = fit_head(train, y, strength, identity, plan)
    dev_y = dev.labels(name)
    logits = dev.largest(linear.logits(dev.x))
    weight = calibration_weights(dev, dev_y, plan.prior)
    final = fold(linear, *platt(logits, dev_y, weight))
    return Trained(
        head=make_head(name, final.weight, final.bias, encoder_sha256),
        strength=strength,
        left_out=left_out,
        rows=(len(train.rows), len(dev.rows)),
        positives=(int((y >= 0.5).sum()), int((dev_y >= 0.5).sum())),
    )


def fit_head(data: Dataset, y: Floats, strength: Strength, identity: Floats | None, plan: Plan) -> Linear:
    """Fit an uncalibrated head on rows with labels `y` (N,), NaN where unknown."""
    share: Floats | None = None
    several = bool(np.any(np.bincount(data.owner, minlength=len(y))[np.nan_to_num(y) >= 0.5] > 1))
    for _ in range(plan.rounds if several else 1):
        weighted = examples(data, y, plan.temper, share)
        linear = fit(data.x, weighted, strength, identity)
        share = responsibilities(data, linear.logits(data.x))
    return linear


def leave_one_source_out(
    name: str, train: Dataset, dev: Dataset, strength: Strength, identity: Floats | None, plan: Plan
) -> Iterator[tuple[str, float]]:
    """Yield each source with positives and its AUROC under a fit on all other sources.

    A source with fewer than 20 negatives is ranked against the dev rows of the sources that have no positive.
    """
    y = train.labels(name)
    with_positives = [
        source for source in np.unique(train.sources) if (y[train.sources == source] >= 0.5).sum() >= MIN_LEFT_OUT
    ]
    if len(with_positives) < 2:
        return
    dev_y = dev.labels(name)
    clean = dev.subset(~np.isin(dev.sources, np.unique(dev.sources[dev_y >= 0.5])))
    for source in with_positives:
        out = train.sources == source
        linear = fit_head(train.subset(~out), y[~out], strength, identity, plan)
        value = _ranked(linear, name, train.subset(out), clean)
        if value is not None:
            yield str(source), value


def _ranked(linear: Linear, name: str, out: Dataset, clean: Dataset) -> float | None:
    scores, labels = out.largest(linear.logits(out.x)), out.labels(name)
    if (labels < 0.5).sum() < MIN_LEFT_OUT:
        scores = np.concatenate((scores[labels >= 0.5], clean.largest(linear.logits(clean.x))))
        labels = np.concatenate((labels[labels >= 0.5], np.zeros(len(clean.rows))))
    sure = labels != 0.5
    return quick_auroc(scores[sure], labels[sure] > 0.5)


def _choose(
    name: str, train: Dataset, dev: Dataset, identity: Floats | None, plan: Plan
) -> tuple[Strength, dict[str, float]]:
    """The strength that is best on known and unknown sources together, and its AUROC on each source left out.

    The fits are made on at most `plan.search_rows` rows, each window by itself.
    """
    sample = train.subset(_sample(train.labels(name), train.sources, plan.search_rows, plan.seed))
    quick = replace(plan, rounds=1)
    nothing = dev.subset(np.zeros(len(dev.rows), dtype=bool))
    best, chosen, left_out = -np.inf, plan.grid[0], {}
    for strength in plan.grid:
        linear = fit_head(sample, sample.labels(name), strength, identity, quick)
        known = _ranked(linear, name, dev, nothing) or 0.0
        unknown = dict(leave_one_source_out(name, sample, dev, strength, identity, quick))
        score = known + float(np.mean(list(unknown.values()) or [known]))
        if score > best:
            best, chosen, left_out = score, strength, unknown
    return chosen, left_out


def _parts(name: str, data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """The rows that know the head, for training and for calibration.

    Raises:
        DataError: a class has fewer than `MIN_ROWS` rows in either.
    """
    y = data.labels(name)
    known = ~np.isnan(y)
    train, dev = known & (data.splits == "train"), known & (data.splits == "dev")
    if not dev.any():
        aside = _aside(y, train, seed)
        train, dev = train & ~aside, train & aside
    for part, rows in (("train", train), ("dev", dev)):
        positives, negatives = int((y[rows] >= 0.5).sum()), int((y[rows] < 0.5).sum())
        if min(positives, negatives) < MIN_ROWS:
            raise DataError(
                f"the head {name!r} needs at least {MIN_ROWS} positive and {MIN_ROWS} negative {part} rows; there are "
                f"{positives} and {negatives}. A head cannot be learned from one class alone."
            )
    return data.subset(train), data.subset(dev)


def _aside(y: Floats, rows: Bools, seed: int) -> Bools:
    """A fifth of `rows`, of each class alike."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(y), dtype=bool)
    for side in (y >= 0.5, y < 0.5):
        members = np.flatnonzero(rows & side)
        chosen[rng.permutation(members)[: -(-len(members) // 5)]] = True
    return chosen


def _sample(y: Floats, sources: np.ndarray, limit: int, seed: int) -> Bools:
    """At most about `limit` rows: every source and class is cut to the same size where it is larger."""
    rng = np.random.default_rng(seed)
    strata = [
        np.flatnonzero((sources == source) & side) for source in np.unique(sources) for side in (y >= 0.5, y < 0.5)
    ]
    sizes = sorted(len(stratum) for stratum in strata)
    cap, left = 0, limit
    for place, size in enumerate(sizes):  # the smallest strata stay whole, the rest share what is left
        cap = left // (len(sizes) - place)
        if size <= cap:
            left -= size
        else:
            break
    else:
        cap = max(sizes, default=0)
    keep = np.zeros(len(y), dtype=bool)
    for stratum in strata:
        keep[rng.permutation(stratum)[:cap]] = True
    return keep
