"""What gives probabilities to labelled texts: the linear heads, or the tuned network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from guardrail.classifiers.tuned import TunedNetwork, readings
from guardrail.encoder import Encoder
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.heads import head_probabilities
from guardrail.evaluate.metrics import Floats
from guardrail.evaluate.suite import Scorer
from guardrail.learn.embeddings import Advance
from guardrail.policy.bundle import LinearHead

__all__ = ["linear_scorer", "tuned_scorer"]


def linear_scorer(heads: Mapping[str, LinearHead], encoder: Encoder, advance: Advance | None = None) -> Scorer:
    """Score by linear heads; `advance` is told how many pieces of text are embedded.

    Raises:
        CheckpointError: when it is called, if a head belongs to another encoder.
    """

    def score(rows: Sequence[LabelledText]) -> Mapping[str, Floats]:
        return head_probabilities(rows, heads, encoder, advance)

    return score


def tuned_scorer(network: TunedNetwork, names: Sequence[str], advance: Advance | None = None) -> Scorer:
    """Score by the tuned network, each text as its worst sentence; `advance` is told how many texts are done."""
    columns = [network.facts.heads.index(name) for name in names]

    def score(rows: Sequence[LabelledText]) -> Mapping[str, Floats]:
        best = np.full((len(rows), len(columns)), -np.inf)
        for start in range(0, len(rows), 128):
            pieces = [(start + at, text) for at, row in enumerate(rows[start : start + 128])
                      for _, text in readings(network.encoder, row.text)]  # fmt: skip
            logits = network.logits([text for _, text in pieces])[:, columns]
            np.maximum.at(best, [owner for owner, _ in pieces], logits)
            if advance is not None:
                advance(min(128, len(rows) - start))
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(best, -30, 30)))
        return {name: probabilities[:, place] for place, name in enumerate(names)}

    return score
