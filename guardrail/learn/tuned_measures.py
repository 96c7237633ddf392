"""What a tuned network is calibrated and measured on: rows that were held aside, and what it can do on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guardrail.classifiers.linear import list_heads, load_head
from guardrail.classifiers.network import Trunk, Upper
from guardrail.encoder import Encoder
from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.evaluate.metrics import RESAMPLES, Estimate, evaluate_scores, quick_auroc
from guardrail.learn.calibrate import mixture_weights, platt
from guardrail.learn.logistic import Floats
from guardrail.learn.report import rounded
from guardrail.learn.train import MIN_LEFT_OUT
from guardrail.learn.tuned import FROZEN, bert_of, score_states
from guardrail.learn.tuned_data import Sampling, TrunkStates, cut, draw

MIN_CALIBRATION = 10
MEASURED = {
    "dev": Sampling(cap=60, caps={}, keep=120, swap=0.0, disguise=0.0),
    "test": Sampling(cap=60, caps={}, keep=120, swap=0.0, disguise=0.0),
}
"""What is drawn of the other splits: the dev rows calibrate, the test rows measure."""


@dataclass(frozen=True, eq=False)
class TunedFigures:
    """What the network can do on the test rows, label by label.

    Attributes:
        n, positives: rows that know the label, and those that carry it.
        metrics: with intervals.
        by_source: source to (rows, positives, AUROC, AUROC of the linear head or None).
        linear: AUROC of the shipped linear head on the same rows; None where there is none.
        calibrated: whether the dev rows sufficed.
        train: (rows, positives) that it learned from.
    """

    n: int
    positives: int
    metrics: Mapping[str, Estimate]
    by_source: Mapping[str, tuple[int, int, float, float | None]] = field(default_factory=dict)
    linear: float | None = None
    calibrated: bool = True
    train: tuple[int, int] = (0, 0)

    def as_json(self) -> dict[str, Any]:
        """Everything, rounded to four places."""
        return {
            "n": self.n,
            "positives": self.positives,
            "train": {"n": self.train[0], "positives": self.train[1]},
            "calibrated": self.calibrated,
            **{name: rounded(estimate.value) for name, estimate in self.metrics.items()},
            "intervals": {
                name: [rounded(estimate.low), rounded(estimate.high)]
                for name, estimate in self.metrics.items()
                if estimate.low is not None
            },
            "linear_auroc": rounded(self.linear),
            "by_source": {
                source: {"n": n, "positives": hits, "auroc": rounded(value), "linear_auroc": rounded(linear)}
                for source, (n, hits, value, linear) in self.by_source.items()
            },
        }


class HeldAside:
    """Drawn rows of the splits "dev" and "test", with hidden states that are kept in a folder.

    Attributes:
        parts: rows by split.

    Args:
        rows: labelled texts of all splits. heads: the K labels. encoder: the embedded encoder. folder: of hidden states.
    """

    def __init__(self, rows: Sequence[LabelledText], heads: Sequence[str], encoder: Encoder, folder: Path) -> None:
        self.heads, self.encoder, self.folder = list(heads), encoder, folder
        self.parts = {
            split: draw([row for row in rows if row.split == split], self.heads, sampling)
            for split, sampling in MEASURED.items()
        }

    def fill(self, deadline: float = np.inf) -> bool:
        """Compute the hidden states that are missing until `deadline` (of `time.monotonic`); say whether all are there."""
        trunk = Trunk(bert_of(self.encoder), FROZEN)
        return all(self.states(split).fill(trunk, deadline) for split in self.parts if self.parts[split])

    def states(self, split: str) -> TrunkStates:
        """Hidden states of the drawn "dev" or "test" rows, there once `fill` has finished."""
        texts = [row.text for row in self.parts[split]]
        dim = bert_of(self.encoder).config.hidden_size
        return TrunkStates([cut(ids) for ids in self.encoder.tokens(texts)], self.folder / split, dim)

    def calibrate(self, upper: Upper) -> dict[str, bool]:
        """Fold Platt scaling into the outputs of `upper`; say for which labels the dev rows sufficed."""
        rows = self.parts["dev"]
        logits = score_states(upper, self.states("dev")) if rows else np.empty((0, len(self.heads)))
        sources = np.array([row.source for row in rows])
        emphasis = np.array([row.weight for row in rows], dtype=np.float64)
        done: dict[str, bool] = {}
        for column, name in enumerate(self.heads):
            y = labels_of(rows, name)
            known = ~np.isnan(y)
            hits = int((y[known] >= 0.5).sum())
            done[name] = min(hits, int(known.sum()) - hits) >= MIN_CALIBRATION
            if not done[name]:
                continue
            weight = mixture_weights(sources[known], emphasis[known], y[known])
            try:
                slope, shift = platt(logits[known, column].astype(np.float64), y[known], weight)
            except DataError:
                done[name] = False
                continue
            with torch.no_grad():
                upper.out.weight[column].mul_(slope)
                upper.out.bias[column].mul_(slope).add_(shift)
        return done

    def measure(
        self,
        upper: Upper,
        calibrated: Mapping[str, bool],
        learned: Sequence[LabelledText],
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> dict[str, TunedFigures]:
        """Return figures on the test rows by label.

        Args:
            upper: the network. calibrated: what `calibrate` said. learned: the rows that it was trained on, to be counted.
            resamples, seed: for the intervals.
        """
        found: dict[str, TunedFigures] = {}
        for name, scored in self._scored(upper):
            own = labels_of(learned, name)
            counts = int((~np.isnan(own)).sum()), int((np.nan_to_num(own) >= 0.5).sum())
            found[name] = self._figures(name, calibrated[name], *scored, counts, resamples, seed)
        return found

    def _scored(self, upper: Upper) -> list[tuple[str, tuple[Floats, Floats | None]]]:
        """Label to the probabilities of the test rows, and those of the linear head where there is one."""
        states = self.states("test")
        logits = score_states(upper, states)
        vectors = sentence_vectors(self.encoder, states)
        found: list[tuple[str, tuple[Floats, Floats | None]]] = []
        for column, name in enumerate(self.heads):
            head = load_head(name) if name in list_heads() else None
            fits = head is not None and head.encoder_sha256 == self.encoder.sha256
            linear = _sigmoid(vectors @ head.weight + head.bias) if head is not None and fits else None
            found.append((name, (_sigmoid(logits[:, column]), linear)))
        return found

    def _figures(
        self,
        name: str,
        calibrated: bool,
        scores: Floats,
        linear: Floats | None,
        learned: tuple[int, int],
        resamples: int,
        seed: int,
    ) -> TunedFigures:
        rows = self.parts["test"]
        labels = labels_of(rows, name)
        keep = ~np.isnan(labels) & (labels != 0.5)
        y, sources = labels > 0.5, np.array([row.source for row in rows])
        by_source: dict[str, tuple[int, int, float, float | None]] = {}
        for source in np.unique(sources[keep]):
            part = keep & (sources == source)
            value = quick_auroc(scores[part], y[part])
            hits, n = int(y[part].sum()), int(part.sum())
            if value is not None and min(hits, n - hits) >= MIN_LEFT_OUT:
                other = None if linear is None else quick_auroc(linear[part], y[part])
                by_source[str(source)] = (n, hits, value, other)
        return TunedFigures(
            n=int(keep.sum()),
            positives=int(y[keep].sum()),
            metrics=evaluate_scores(scores[keep], y[keep], resamples=resamples, seed=seed),
            by_source=by_source,
            linear=None if linear is None else quick_auroc(linear[keep], y[keep]),
            calibrated=calibrated,
            train=learned,
        )


def sentence_vectors(encoder: Encoder, states: TrunkStates) -> Floats:
    """(N, d) unit sentence vectors of rows whose hidden states are there: the frozen encoder's own upper layers."""
    plain = Upper(bert_of(encoder), FROZEN, encoder.dim).eval()
    with torch.no_grad():
        plain.out.weight.copy_(torch.eye(encoder.dim))
        plain.out.bias.zero_()
    pooled = score_states(plain, states).astype(np.float64)
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))


def write_figures(path: Path, figures: Mapping[str, TunedFigures], encoder: Encoder, command: str, seed: int) -> None:
    """Write the figures of all labels as JSON."""
    document = {
        "encoder": {"name": encoder.name, "sha256": encoder.sha256},
        "command": command,
        "seed": seed,
        "heads": {name: each.as_json() for name, each in figures.items()},
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _sigmoid(logits: Any) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(np.asarray(logits, dtype=np.float64), -30, 30))))
