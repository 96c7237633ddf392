"""Judges of generated text that share neither features nor training rows with what steers the rewriter.

Toxicity and sentiment: logistic regressions on character n-grams (1 to 5, word boundaries), trained when they are
needed on sets that no shipped weights are trained on. Fluency: a logistic regression on what an independent n-gram
model (`guardrail.evaluate.ngrams`) says of a sentence, trained to tell held-out sentences from broken ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.dglm.corpus import detokenise, read_rows
from guardrail.evaluate.ngrams import NGramModel, Tokenise

JUDGE_FILES = ("tweeteval-offensive", "cad", "toxicr", "tweeteval-hate", "unhealthy-conversations")
"""Evaluation-only sets of the shared data: no shipped weights are trained on them."""

SENTIMENT_FILES = ("sst2", "yelp", "tweeteval-sentiment")

Judge = Callable[[Sequence[str]], npt.NDArray[np.float64]]
"""Texts to (N,) probabilities."""


def train_judge(data: Path, seed: int = 0, cap: int = 12_000) -> Judge:
    """Train the toxicity judge; it returns the probability that each text is toxic."""
    heads = ("toxicity", "identity_hate", "hostile", "antagonize")
    return _train(data, JUDGE_FILES, heads, seed, cap)


def train_sentiment_judge(data: Path, seed: int = 0, cap: int = 12_000) -> Judge:
    """Train the sentiment judge; it returns the probability that each text is positive."""
    return _train(data, SENTIMENT_FILES, ("positive_sentiment",), seed, cap)


def _train(data: Path, files: Sequence[str], heads: Sequence[str], seed: int, cap: int) -> Judge:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts: list[str] = []
    labels: list[int] = []
    rng = np.random.default_rng(seed)
    for name in files:
        rows = list(_labelled(data / "labelled" / f"{name}.jsonl.gz", heads))
        for index in rng.permutation(len(rows))[:cap]:
            texts.append(rows[index][0])
            labels.append(rows[index][1])
    vectoriser = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(1, 5), min_df=4, max_features=300_000, sublinear_tf=True
    )
    model = make_pipeline(
        vectoriser, LogisticRegression(C=4.0, class_weight="balanced", max_iter=300, random_state=seed)
    )
    model.fit(texts, labels)

    def judge(found: Sequence[str]) -> npt.NDArray[np.float64]:
        return np.asarray(model.predict_proba(list(found))[:, 1]) if len(found) else np.zeros(0)

    return judge


def _labelled(path: Path, heads: Sequence[str]) -> Iterator[tuple[str, int]]:
    for row in read_rows(path):
        known = [row["labels"][head] for head in heads if head in row["labels"]]
        if known and max(known) != 0.5:
            yield row["text"], int(max(known) > 0.5)


class FluencyJudge:
    """Probability that a sentence is not broken.

    Args:
        model: the n-gram model; it must not have been trained on `sentences`. tokenise: texts to token ids.
        sentences: well-formed sentences. They are the positive examples; each is also broken in one way: words left
            out, doubled, swapped with a neighbour or replaced by a word of another sentence, or cut at the end.
        seed: of the breaking and the regression.

    Attributes:
        auroc: area under the ROC curve on a fifth of the sentences that was not trained on.
    """

    def __init__(self, model: NGramModel, tokenise: Tokenise, sentences: Sequence[str], seed: int = 0) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._model, self._tokenise = model, tokenise
        rng = np.random.default_rng(seed)
        broken = [break_sentence(text, sentences, rng) for text in sentences]
        x = self._features([*sentences, *broken])
        y = np.repeat([1, 0], len(sentences))
        held = np.tile(np.arange(len(sentences)) % 5 == 0, 2)
        regression: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, random_state=seed))
        self._regression = regression.fit(x[~held], y[~held])
        self.auroc = float(roc_auc_score(y[held], regression.predict_proba(x[held])[:, 1]))

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Texts to (N,) probabilities; 0 for a text without a word."""
        if not len(texts):
            return np.zeros(0)
        found = np.asarray(self._regression.predict_proba(self._features(texts))[:, 1])
        return np.where([any(map(str.isalnum, text)) for text in texts], found, 0.0)

    def _features(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """How likely the tokens are, and how much likelier than without their context (SLOR, Kann et al. 2018)."""
        return np.array([self._row(ids) for ids in self._tokenise(texts)])

    def _row(self, ids: Sequence[int]) -> list[float]:
        likely = self._model.log_probabilities(ids)
        gain = likely - self._model.unigram_log_probabilities(ids)
        row = [likely[0], likely[-1], gain[-1], float(np.log(len(likely)))]
        for values, bounds in ((likely, (-5.0, -8.0, -11.0)), (gain, (1.0, 0.0, -1.5))):
            lowest = np.sort(np.concatenate([values, np.full(3, values.max())]))[:3]
            pairs = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
            row += [values.mean(), *lowest, pairs.min(), *((values < bound).mean() for bound in bounds)]
        return row


def break_sentence(text: str, others: Sequence[str], rng: np.random.Generator) -> str:
    """Return the text broken in one or two of the ways in which small language models break sentences."""
    words = detokenise(text).split()
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(len(words)))
        kind = int(rng.integers(5))
        if kind == 0 and len(words) > 2:
            del words[at : at + int(rng.integers(1, 3))]
        elif kind == 1:
            words.insert(at, words[at])
        elif kind == 2 and at + 1 < len(words):
            words[at], words[at + 1] = words[at + 1], words[at]
        elif kind == 3:
            other = others[int(rng.integers(len(others)))].split()
            words[at] = other[int(rng.integers(len(other)))]
        elif len(words) > 3:
            words = words[: -int(rng.integers(1, 3))]
        words = words or text.split()
    return " ".join(words)
