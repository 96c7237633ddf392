"""Training a trigram head: logistic regression on the sets of hashed trigrams, calibrated on rows held aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from guardrail.classifiers.trihash import BUCKETS, TrihashHead, buckets
from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.evaluate.metrics import quick_auroc
from guardrail.learn.calibrate import platt

__all__ = ["features", "train_trihash"]

FEWEST = 20
STRENGTH = 30.0


def features(texts: Sequence[str]) -> Any:
    """(N, BUCKETS) sparse matrix of unit rows."""
    from scipy.sparse import csr_matrix

    rows = [buckets(text) for text in texts]
    ends = np.cumsum([0, *(len(row) for row in rows)])
    values = np.concatenate([np.full(len(row), 1.0 / np.sqrt(max(1, len(row)))) for row in rows])
    return csr_matrix((values, np.concatenate(rows), ends), shape=(len(rows), BUCKETS))


def train_trihash(
    name: str, rows: Sequence[LabelledText], seed: int = 0, strength: float = STRENGTH
) -> tuple[TrihashHead, float | None]:
    """Train the head `name` on the rows that know it, and return it with its AUROC on the calibration rows.

    Rows of the split dev calibrate; without any, a fifth of the training rows does. `strength` is the inverse of the
    penalty (`C` of scikit-learn's logistic regression): the more texts, the more it may be.

    Raises:
        DataError: fewer than 20 rows of a class for training or calibration.
    """
    from sklearn.linear_model import LogisticRegression

    y = labels_of(rows, name)
    known = ~np.isnan(y) & (y != 0.5)
    splits = np.array([row.split for row in rows])
    train, aside = known & (splits == "train"), known & (splits == "dev")
    if not aside.any():
        chosen = np.random.default_rng(seed).random(len(rows)) < 0.2
        train, aside = train & ~chosen, train & chosen
    for part, mask in (("training", train), ("calibration", aside)):
        counts = int((y[mask] > 0.5).sum()), int((y[mask] < 0.5).sum())
        if min(counts) < FEWEST:
            raise DataError(
                f"the head {name!r} needs at least {FEWEST} positive and {FEWEST} negative {part} rows; there are "
                f"{counts[0]} and {counts[1]}"
            )
    texts = np.array([row.text for row in rows], dtype=object)
    model = LogisticRegression(C=strength, max_iter=600, class_weight="balanced")
    model.fit(features(texts[train]), y[train] > 0.5)
    logits = np.asarray(features(texts[aside]) @ model.coef_[0] + model.intercept_[0])
    truth = (y[aside] > 0.5).astype(np.float64)
    slope, shift = platt(logits, truth, np.ones(len(truth)))
    weight = (slope * model.coef_[0]).astype(np.float16).astype(np.float32)  # as it will be stored
    return TrihashHead(name, weight, float(slope * model.intercept_[0] + shift)), quick_auroc(logits, truth)
