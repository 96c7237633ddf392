"""Which embedding the decoder is told while it learns to rewrite.

The paper's decoder is told the embedding of the very sentence that it should write (Lovelace et al. 2024, section 4.3).
A rewriter does not know that sentence: it moves the embedding of the draft, or of what is left of it without its hidden
words, until the heads are satisfied. A decoder that has only seen the first kind trusts the embedding to say which word
belongs where one is hidden, and writes nonsense when it does not; so a share of the examples are of the second kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.corpus import Pair
from guardrail.dglm.guidance import Guide, project
from guardrail.dglm.latents import Array, LatentStatistics

MARGINS = (1.0, 6.0)
"""Least and largest wanted logit, unless a recipe says otherwise: those of `guardrail.dglm.plans`."""

MOST_GUIDES = 3
"""Heads that an example is moved by, at most; a violated rule seldom has more."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Text whose embedding is moved, the guides that move it, and the wanted logit on their allowed side."""

    base: str
    guides: tuple[Guide, ...] = ()
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Aims:
    """Draw aims for training pairs.

    Attributes:
        guides: heads to move away from; none: every aim is the target's own embedding.
        share: of the examples with a draft that aim as a rewriter does, in [0, 1].
        margins: least and largest wanted logit.
    """

    guides: tuple[Guide, ...] = ()
    share: float = 0.0
    margins: tuple[float, float] = MARGINS

    def draw(self, pair: Pair, rng: np.random.Generator) -> Aim:
        """Return the aim of one pair: by chance its draft's moved embedding, else its target's own."""
        base = " ".join(word for word in pair.source.split() if HIDDEN not in word)
        if not self.guides or not base or rng.random() >= self.share:
            return Aim(pair.target)
        count = int(rng.integers(1, min(MOST_GUIDES, len(self.guides)) + 1))
        chosen = rng.choice(len(self.guides), size=count, replace=False)
        return Aim(base, tuple(self.guides[index] for index in chosen), float(rng.uniform(*self.margins)))


def wanted(aims: Sequence[Aim], embeddings: Array, statistics: LatentStatistics) -> Array:
    """Return the wanted unit embeddings (N, d) of aims, given those of their bases (N, d)."""
    return np.stack([project(x, aim.guides, aim.margin, statistics) for aim, x in zip(aims, embeddings, strict=True)])
