"""Linear heads from the tuned network: they learn its opinion of texts whose label nobody knows.

A label that few sources know gives a linear head little but those sources' style. The tuned network has an opinion of
every text, so the head is fitted to labels where they are known, mixed with that opinion, and to the opinion alone
elsewhere (distillation with soft targets, Hinton et al. 2015, section 2). Calibration and figures use true labels only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from guardrail.evaluate.data import LabelledText
from guardrail.learn.dataset import Dataset, Floats

__all__ = ["TRUST", "as_dataset", "taught_by"]

TRUST = 0.7
"""Share of a known label in its target; the rest is the network's probability."""
UNLABELLED = 0.3
"""How much a text counts whose label nobody knows, beside one that is labelled."""


def as_dataset(rows: list[LabelledText], vectors: Floats) -> Dataset:
    """N rows with their (N, d) vectors, one window each."""
    numbers = np.arange(len(rows), dtype=np.int64)
    return Dataset(tuple(rows), vectors.astype(np.float32), numbers, np.ones(len(rows), dtype=bool))


def taught_by(data: Dataset, name: str, opinion: Floats) -> Dataset:
    """Return `data` with the targets of one label mixed with an opinion, in the training rows only.

    Args:
        data: N rows.
        name: the label.
        opinion: (N,) probabilities of the network.
    """
    rows = []
    for row, probability in zip(data.rows, opinion.tolist(), strict=True):
        if row.split != "train":
            rows.append(row)
            continue
        known = name in row.labels
        target = TRUST * row.labels[name] + (1 - TRUST) * probability if known else probability
        weight = row.weight * (1.0 if known else UNLABELLED)
        rows.append(replace(row, labels={**row.labels, name: float(np.clip(target, 0.0, 1.0))}, weight=weight))
    return replace(data, rows=tuple(rows))
