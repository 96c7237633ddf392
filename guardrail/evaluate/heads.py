"""Measuring heads on labelled texts: each against its own label, and all harm heads together against any harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.encoder import Encoder
from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.evaluate.metrics import METRICS, RESAMPLES, Estimate, evaluate_scores
from guardrail.learn.dataset import build_dataset
from guardrail.learn.embeddings import Advance, EmbeddingCache
from guardrail.policy.bundle import LinearHead

HARM_HEADS = ("toxicity", "insult", "profanity", "identity_hate", "threat", "sexual", "violence", "self_harm")
HARM_LABELS = frozenset((*HARM_HEADS, "severe_toxicity", "sexism", "harassment"))
"""A row is harmful as a whole if any of these labels is positive."""

ANY = "any"


@dataclass(frozen=True, slots=True)
class HeadReport:
    """One head on one data set: rows that know it (a label of exactly 0.5 is undecided), and the metrics."""

    n: int
    positives: int
    metrics: Mapping[str, Estimate]

    def as_json(self) -> dict[str, Any]:
        """`{"n", "positives", metric: value or null, ..., "intervals": {metric: [low, high]}}`, `reason` if null."""
        document: dict[str, Any] = {"n": self.n, "positives": self.positives}
        document |= {name: self.metrics[name].value for name in METRICS}
        document["intervals"] = {
            name: None if self.metrics[name].low is None else [self.metrics[name].low, self.metrics[name].high]
            for name in METRICS
        }
        reasons = {estimate.reason for estimate in self.metrics.values() if estimate.reason}
        return document | ({"reason": "; ".join(sorted(reasons))} if reasons else {})


def evaluate_heads(
    rows: Sequence[LabelledText],
    heads: Mapping[str, LinearHead],
    encoder: Encoder,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    advance: Advance | None = None,
) -> dict[str, HeadReport]:
    """Return a report for every head, and one for `any`: the largest harm head against any positive harm label.

    Args:
        rows: labelled texts; a head that a row does not know is not measured on it.
        heads: name of a label to the head that predicts it.
        encoder: the one that the heads were trained with.
        resamples: for the intervals.
        seed: of the resampling.
        advance: told how many pieces of text are embedded.

    Raises:
        DataError: no row.
    """
    if not rows:
        raise DataError("there are no rows to measure on")
    scores = head_probabilities(rows, heads, encoder, advance)
    reports = {name: _report(scores[name], labels_of(rows, name), resamples, seed) for name in heads}
    harm = [name for name in HARM_HEADS if name in heads]
    if harm:
        reports[ANY] = _report(np.max([scores[name] for name in harm], axis=0), any_harm(rows), resamples, seed)
    return reports


def head_probabilities(
    rows: Sequence[LabelledText], heads: Mapping[str, LinearHead], encoder: Encoder, advance: Advance | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Head to (N,) probabilities, each that of the worst window of its text.

    Raises:
        CheckpointError: a head belongs to another encoder.
    """
    from guardrail.classifiers.linear import check_space

    for head in heads.values():
        check_space(head, encoder)
    data = build_dataset(rows, EmbeddingCache(encoder), advance)
    largest = {name: data.largest(data.x @ head.weight + head.bias) for name, head in heads.items()}
    return {name: 1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30))) for name, logits in largest.items()}


def any_harm(rows: Sequence[LabelledText]) -> npt.NDArray[np.float64]:
    """(N,) largest harm label of each row; NaN where it has none."""
    known = [[value for name, value in row.labels.items() if name in HARM_LABELS] for row in rows]
    return np.array([max(values) if values else np.nan for values in known])


def _report(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], resamples: int, seed: int) -> HeadReport:
    decided = ~np.isnan(labels) & (labels != 0.5)
    positive = labels[decided] > 0.5
    metrics = evaluate_scores(scores[decided], positive, resamples=resamples, seed=seed)
    return HeadReport(int(decided.sum()), int(positive.sum()), metrics)
