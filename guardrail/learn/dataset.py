"""Labelled texts as the heads read them: windows of whole sentences, each with its vector.

A text is one bag of windows: it is harmful if one of them is (multiple-instance learning, Dietterich et al. 1997).
Where a row says by spans which part carries its positive labels, the windows outside are known to be negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from guardrail.classifiers.linear import readings
from guardrail.encoder import Vectors
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.learn.embeddings import Advance, EmbeddingCache
from guardrail.types import Span

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """N rows, cut into M windows.

    Attributes:
        rows: the labelled texts.
        x: (M, d) float32 unit vectors of the windows.
        owner: (M,) which row a window belongs to, ascending.
        marked: (M,) whether a window may carry its row's positive labels: it overlaps a span, or the row has none.
    """

    rows: tuple[LabelledText, ...]
    x: Vectors
    owner: Ints
    marked: Bools

    @cached_property
    def sources(self) -> npt.NDArray[np.str_]:
        """(N,) source of each row."""
        return np.array([row.source for row in self.rows])

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """(N,) split of each row."""
        return np.array([row.split for row in self.rows])

    @cached_property
    def weights(self) -> Floats:
        """(N,) weight of each row, as it says itself."""
        return np.array([row.weight for row in self.rows], dtype=np.float64)

    def labels(self, head: str) -> Floats:
        """(N,) labels in [0, 1]; NaN where unknown."""
        return labels_of(self.rows, head)

    def used(self, head: str) -> dict[str, tuple[int, int]]:
        """Source to its training rows that know the label: (positive, negative)."""
        y = self.labels(head)
        trained_on = ~np.isnan(y) & (self.splits == "train")
        counts = {}
        for source in np.unique(self.sources[trained_on]):
            rows = trained_on & (self.sources == source)
            counts[str(source)] = (int((y[rows] >= 0.5).sum()), int((y[rows] < 0.5).sum()))
        return counts

    def largest(self, logits: npt.ArrayLike) -> Floats:
        """(M,) logits of windows to (N,): that of a row is its largest."""
        best = np.full(len(self.rows), -np.inf)
        np.maximum.at(best, self.owner, np.asarray(logits, dtype=np.float64))
        return best

    def subset(self, keep: Bools) -> Dataset:
        """The rows where `keep` (N,) is true, with their windows."""
        chosen = np.flatnonzero(keep)
        windows = keep[self.owner]
        number = np.zeros(len(self.rows), dtype=np.int64)
        number[chosen] = np.arange(len(chosen))
        rows = tuple(self.rows[place] for place in chosen)
        return Dataset(rows, self.x[windows], number[self.owner[windows]], self.marked[windows])


def build_dataset(rows: Sequence[LabelledText], cache: EmbeddingCache, advance: Advance | None = None) -> Dataset:
    """Cut every text into windows and embed them; `advance(windows)` is told of progress."""
    texts: list[str] = []
    owner: list[int] = []
    marked: list[bool] = []
    for number, row in enumerate(rows):
        for span, text in readings(cache.encoder, row.text):
            texts.append(text)
            owner.append(number)
            marked.append(not row.spans or any(_overlaps(span, part) for part in row.spans))
    vectors = cache.embed(texts, advance) if advance is not None else cache.embed(texts)
    return Dataset(tuple(rows), vectors, np.array(owner, dtype=np.int64), np.array(marked, dtype=bool))


def _overlaps(window: Span, part: Span) -> bool:
    """Whether at least half of the smaller of the two lies in the other."""
    common = min(window[1], part[1]) - max(window[0], part[0])
    return common > 0 and 2 * common >= min(window[1] - window[0], part[1] - part[0])
