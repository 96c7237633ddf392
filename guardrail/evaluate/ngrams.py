"""An independent language model: interpolated Kneser-Ney trigrams over word pieces.

It measures text that our decoder wrote and shares nothing with it but the vocabulary, so that no system is graded by its
own model. As a class-conditional model it is also the discriminator of GeDi (`guardrail.evaluate.baselines`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardrail.dglm.corpus import detokenise, read_rows
from guardrail.errors import DataError
from guardrail.text.segment import sentences

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Tokenise = Callable[[Sequence[str]], list[list[int]]]

START, END = 101, 102  # [CLS], [SEP]

LANGUAGE_FILES = (
    "dialogue/dailydialog.jsonl.gz",
    "dialogue/empatheticdialogues.jsonl.gz",
    "dialogue/cmu-dog.jsonl.gz",
    "plain/c4-demo.txt.gz",
    "plain/imdb-reviews.txt.gz",
    "labelled/unhealthy-conversations.jsonl.gz",
    "labelled/tweeteval-sentiment.jsonl.gz",
)
"""Evaluation-only sets of the shared data: no shipped weights are trained on them."""


class NGramModel:
    """Interpolated Kneser-Ney trigrams (Kneser & Ney 1995; Chen & Goodman 1999, equation 27), one discount per order.

    Args:
        sentences: token ids of the training sentences, without start and end marks.
        vocabulary: number of token ids V; ids are below it.

    Raises:
        DataError: no sentence has a token.
    """

    def __init__(self, sentences: Iterable[Sequence[int]], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        flat = np.array([i for own in sentences if own for i in (START, START, *own, END)], dtype=np.int64)
        if not len(flat):
            raise DataError("an n-gram model needs at least one sentence with a word")
        a, b, c = flat[:-2], flat[1:-1], flat[2:]
        inside = (c != START) & (b != END)  # no trigram reaches over the end of a sentence
        keys = (a[inside] * vocabulary + b[inside]) * vocabulary + c[inside]
        self._tri, counts = np.unique(keys, return_counts=True)
        self._tri_counts = counts.astype(np.float64)
        self._bi, followed = np.unique(self._tri % vocabulary**2, return_counts=True)  # N1+(. b c)
        self._bi_counts = followed.astype(np.float64)
        unigrams, types = np.unique(self._bi % vocabulary, return_counts=True)  # N1+(. c)
        self._discounts = [_discount(values) for values in (types, self._bi_counts, self._tri_counts)]
        self._tri_totals = _Totals(self._tri // vocabulary, self._tri_counts)
        self._bi_totals = _Totals(self._bi // vocabulary, self._bi_counts)
        total = types.sum()
        self._unigram = np.full(vocabulary, self._discounts[0] * len(unigrams) / total / vocabulary)
        self._unigram[unigrams] += (types - self._discounts[0]) / total

    def log_probabilities(self, ids: Sequence[int]) -> Floats:
        """Return log p of every token of a sentence and of its end, (T + 1,), in nats."""
        flat = np.array([START, START, *ids, END], dtype=np.int64)
        a, b, c = flat[:-2], flat[1:-1], flat[2:]
        v = self.vocabulary
        p = self._unigram[c]
        p = self._interpolated(p, b, self._bi, self._bi_counts, b * v + c, self._bi_totals, self._discounts[1])
        context = a * v + b
        p = self._interpolated(
            p, context, self._tri, self._tri_counts, context * v + c, self._tri_totals, self._discounts[2]
        )
        return np.asarray(np.log(p))

    def unigram_log_probabilities(self, ids: Sequence[int]) -> Floats:
        """Return log p of every token and of the end without their context, (T + 1,), in nats."""
        return np.asarray(np.log(self._unigram[np.array([*ids, END], dtype=np.int64)]))

    @staticmethod
    def _interpolated(
        lower: Floats, context: Ints, keys: Ints, counts: Floats, wanted: Ints, totals: _Totals, discount: float
    ) -> Floats:
        """max(c - D, 0) / total + D types / total * lower; lower alone where the context is new. All (T,)."""
        total, types = totals.of(context)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[place] == wanted, counts[place], 0.0)
        known = np.maximum(total, 1.0)
        mixed = np.maximum(found - discount, 0.0) / known + discount * types / known * lower
        return np.where(total > 0, mixed, lower)

    def distribution(self, before: Sequence[int]) -> Floats:
        """Return p of every next token, (V,), after the tokens `before` of a sentence."""
        a, b = (START, START, *before)[-2:]
        v = self.vocabulary
        p = self._spread(self._unigram, b, self._bi, self._bi_counts, self._bi_totals, self._discounts[1])
        return self._spread(p, a * v + b, self._tri, self._tri_counts, self._tri_totals, self._discounts[2])

    def _spread(
        self, lower: Floats, context: int, keys: Ints, counts: Floats, totals: _Totals, discount: float
    ) -> Floats:
        total, types = (float(value[0]) for value in totals.of(np.array([context], dtype=np.int64)))
        if not total:
            return lower
        start, end = np.searchsorted(keys, (context * self.vocabulary, (context + 1) * self.vocabulary))
        p = lower * (discount * types / total)
        p[keys[start:end] % self.vocabulary] += np.maximum(counts[start:end] - discount, 0.0) / total
        return p


class _Totals:
    """Sum of counts and number of types of each context; contexts sorted, with repetitions."""

    def __init__(self, contexts: Ints, counts: Floats) -> None:
        self._contexts, first, types = np.unique(contexts, return_index=True, return_counts=True)
        self._sums = np.add.reduceat(counts, first)
        self._types = types.astype(np.float64)

    def of(self, contexts: Ints) -> tuple[Floats, Floats]:
        place = np.minimum(np.searchsorted(self._contexts, contexts), len(self._contexts) - 1)
        hit = self._contexts[place] == contexts
        return np.where(hit, self._sums[place], 0.0), np.where(hit, self._types[place], 0.0)


def _discount(counts: npt.ArrayLike) -> float:
    """n1 / (n1 + 2 n2) (Chen & Goodman 1999, equation 24); 0.5 where there is nothing to estimate it from."""
    values = np.asarray(counts)
    once, twice = int((values == 1).sum()), int((values == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5


def perplexity(model: NGramModel, sequences: Sequence[Sequence[int]]) -> float:
    """Return exp of the mean negative log-probability of all tokens, ends included; nan without any."""
    values = [model.log_probabilities(ids) for ids in sequences]
    return float(np.exp(-np.concatenate(values).mean())) if values else float("nan")


def held_out_sentences(data: Path, cap: int = 12_000) -> Iterator[str]:
    """Yield sentences of 3 to 40 words of `LANGUAGE_FILES`, at most `cap` of each file.

    Raises:
        DataError: a file is missing.
    """
    for name in LANGUAGE_FILES:
        if not (data / name).is_file():
            raise DataError("the perplexity model needs this file of the shared data", file=str(data / name))
        yield from islice(_sentences_of(data / name), cap)


def _sentences_of(path: Path) -> Iterator[str]:
    for row in read_rows(path):
        for passage in [turn["text"] for turn in row["turns"]] if "turns" in row else [row["text"]]:
            text = detokenise(passage.replace("<br />", " "))
            for start, end in sentences(text):
                words = text[start:end].split()
                if 3 <= len(words) <= 40:
                    yield " ".join(words)
