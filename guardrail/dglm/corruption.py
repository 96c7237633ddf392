"""Spoil clean sentences, so that the decoder learns to follow the embedding and to copy what is harmless.

Denoising with a draft in view (trial B of the design notes; compare BART's noising, Lewis et al. 2020, section 2.2):
words are dropped, hidden or replaced, harmful phrases and outbursts inserted; the target stays the clean sentence.
"""

from __future__ import annotations

import numpy as np

from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.corpus import Corpus, Pair

_EDGES = ".,!?;:\"'()"


class Spoiler:
    """Draw training pairs from a corpus. All randomness comes from the generator handed in.

    Args:
        corpus: the pools.
        weights: pool name -> share; `denoise`, `identity` and `continue` are pools too.
    """

    def __init__(self, corpus: Corpus, weights: dict[str, float]) -> None:
        self.corpus = corpus
        self.pools = list(weights)
        shares = np.array([weights[pool] for pool in self.pools], dtype=float)
        self.shares = shares / shares.sum()

    def draw(self, rng: np.random.Generator) -> Pair:
        """Return one training pair; `source` is empty where the decoder must write from the embedding alone."""
        pool = self.pools[int(rng.choice(len(self.pools), p=self.shares))]
        if pool == "denoise":
            target, before = self._clean(rng)
            return Pair(self.spoil(target, rng), target, before if rng.random() < 0.3 else "")
        if pool == "identity":
            target, before = self._clean(rng)
            return Pair(target, target, before if rng.random() < 0.3 else "")
        if pool == "continue":  # no draft: written from the embedding and what stood before
            target, before = self._clean(rng)
            return Pair("", target, before)
        pairs = self.corpus.pairs[pool]
        pair = restyle(pairs[int(rng.integers(len(pairs)))], rng)
        return hide(pair, rng) if rng.random() < 0.45 else pair

    def _clean(self, rng: np.random.Generator) -> tuple[str, str]:
        return self.corpus.clean[int(rng.integers(len(self.corpus.clean)))]

    def spoil(self, sentence: str, rng: np.random.Generator) -> str:
        """Return a spoiled copy of `sentence`; empty in 15% of cases."""
        if rng.random() < 0.15:
            return ""
        words = sentence.split()
        if rng.random() < 0.6:
            words = self._drop_and_replace(words, rng, rate=float(rng.uniform(0.0, 0.35)))
        if rng.random() < 0.65:
            for _ in range(int(rng.integers(1, 4))):
                phrase = self.corpus.phrases[int(rng.integers(len(self.corpus.phrases)))]
                words.insert(int(rng.integers(len(words) + 1)), phrase)
        if rng.random() < 0.25 and self.corpus.outbursts:
            outburst = self.corpus.outbursts[int(rng.integers(len(self.corpus.outbursts)))]
            words = [outburst, *words] if rng.random() < 0.5 else [*words, outburst]
        return " ".join(words)

    def _drop_and_replace(self, words: list[str], rng: np.random.Generator, rate: float) -> list[str]:
        other = self._clean(rng)[0].split()
        kept: list[str] = []
        for word in words:
            chance = rng.random()
            if chance < 0.3 * rate:
                continue
            if chance < 0.65 * rate:
                kept.append(HIDDEN)
            else:
                kept.append(other[int(rng.integers(len(other)))] if chance < rate else word)
        return kept


def hide(pair: Pair, rng: np.random.Generator) -> Pair:
    """Hide words of the draft that its rewrite does not have, as the rewriter does with the words that weigh most."""
    wanted = {word.strip(_EDGES).lower() for word in pair.target.split()}
    share = rng.uniform(0.5, 1.0)
    words = [
        HIDDEN if word.strip(_EDGES).lower() not in wanted and rng.random() < share else word
        for word in pair.source.split()
    ]
    return Pair(" ".join(words), pair.target, pair.before)


def restyle(pair: Pair, rng: np.random.Generator) -> Pair:
    """Vary the typography of a lower-cased pair, in source and target alike, so that cased drafts stay cased."""
    source, target = pair.source, pair.target
    if source.islower():
        chance = rng.random()
        if chance < 0.45:
            source, target = _sentence_case(source), _sentence_case(target)
        elif chance < 0.5:
            source, target = source.upper(), target.upper()
        else:
            target = target[:1].lower() + target[1:] if not target[:2].isupper() and target[:2] != "I " else target
    if rng.random() < 0.3 and source.endswith((".", "!")) and target.endswith((".", "!")):
        source, target = source[:-1].rstrip(), target[:-1].rstrip()
    return Pair(source, target, pair.before)


def _sentence_case(text: str) -> str:
    words = ["I" + word[1:] if word == "i" or word.startswith(("i'", "i’")) else word for word in text.split()]
    joined = " ".join(words)
    return joined[:1].upper() + joined[1:]
