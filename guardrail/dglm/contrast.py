"""Teach the decoder which of two rewrites of a draft reads better, beside what people made of it.

Contrastive preference optimisation (Xu et al., ICML 2024, section 3): the better rewrite should be likelier than the worse
one, by a logistic loss on the difference of their log-likelihoods, without a reference model; the pairs that people wrote
are the likelihood term that keeps the decoder from drifting. What comes from imitation alone leaves words out that the
sentence needs, since people leave out the rude ones; being shown such a sentence as the worse one is what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from guardrail.dglm.aims import Aim, Aims
from guardrail.dglm.batch import Example, TargetBatch, make_example
from guardrail.dglm.codec import Codec
from guardrail.dglm.corpus import Pair, read_rows
from guardrail.dglm.corruption import hide
from guardrail.dglm.decoder import Decoder, Prefix
from guardrail.dglm.loss import token_log_probabilities
from guardrail.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Rated:
    """A draft, the rewrites of it that are good, the person's own first, and those that are not; none is empty."""

    draft: str
    good: tuple[str, ...]
    bad: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a recipe's `preferences` says.

    Attributes:
        file: of the ratings. pairs: of rewrites per optimiser step. beta: nats of difference are multiplied by it; the
            larger, the sooner a pair is won. weight: of a pair's loss beside the loss of one token.
    """

    file: str
    pairs: int = 10
    beta: float = 0.5
    weight: float = 2.0


def read_rated(path: Path, split: str = "train") -> list[Rated]:
    """Read JSON lines: `source`, `target`, `split`, and `candidates` with `text`, `fluent`, `meaning` (0 to 2), `toxic`.

    Good is what reads fluently, keeps the point and is not rude. Drafts of which nothing was rated bad are left out.

    Raises:
        ConfigurationError: the file is missing, or a line has not these keys.
    """
    found: list[Rated] = []
    try:
        for row in read_rows(path):
            good: list[str] = [row["target"]]
            bad: list[str] = []
            for one in row["candidates"]:
                sound = one["fluent"] and one["meaning"] >= 1
                if not sound:
                    bad.append(one["text"])
                elif not one["toxic"]:
                    good.append(one["text"])
            bad = [text for text in bad if text not in good]
            if bad and row["split"] == split:
                found.append(Rated(row["source"], tuple(good), tuple(bad)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} holds no ratings of rewrites ({error!r})") from error
    return found


class Contests:
    """The contests of every step: pairs of a better and a worse rewrite, a function of (seed, step).

    Args:
        rated: what readers rated. codec: of the decoder. aims: by which heads a draft's embedding is moved. settings: of
            the recipe. seed: of the run.

    Raises:
        ConfigurationError: nothing was rated.
    """

    def __init__(self, rated: Sequence[Rated], codec: Codec, aims: Aims, settings: Settings, seed: int) -> None:
        if not rated:
            raise ConfigurationError(f"{settings.file} holds no draft with a good and a bad rewrite")
        self.settings = settings
        self._rated, self._codec, self._seed, self._aims = rated, codec, seed, replace(aims, share=1.0)

    def __call__(self, step: int, pairs: int | None = None) -> list[Example]:
        """Return the contests of a step as one batch: better, worse, better, worse, and so on."""
        rng = np.random.default_rng([self._seed, step, 1])
        return [example for _ in range(pairs or self.settings.pairs) for example in self._draw(rng)]

    def _draw(self, rng: np.random.Generator) -> tuple[Example, Example]:
        """A better and a worse rewrite of one draft.

        Both are told the same: the draft, whole or with words hidden, and its embedding, moved or not; never the embedding
        of either rewrite, which would give the answer away.
        """
        one = self._rated[int(rng.integers(len(self._rated)))]
        better = one.good[0 if rng.random() < 0.5 else int(rng.integers(len(one.good)))]
        worse = one.bad[int(rng.integers(len(one.bad)))]
        pair = Pair(one.draft, better)
        aim = self._aims.draw(pair, rng) if rng.random() < 0.5 else Aim(one.draft)
        shown = hide(pair, rng).source if rng.random() < 0.3 else one.draft
        first, second = (make_example(self._codec, Pair(shown, text), aim) for text in (better, worse))
        return first, second


def contests_of(
    recipe: Mapping[str, Any], project: Path, codec: Codec, aims: Aims, split: str = "train"
) -> Contests | None:
    """Return the contests of a recipe's `preferences`; None where it has none.

    Args:
        project: folder that recipe paths beginning with `./` are relative to.

    Raises:
        ConfigurationError: a key is unknown or missing, or the file cannot be used.
    """
    if not recipe.get("preferences"):
        return None
    try:
        settings = Settings(**recipe["preferences"])
    except TypeError as error:
        raise ConfigurationError(f"the recipe's `preferences` cannot be used: {error}") from error
    rated = read_rated(project / settings.file.removeprefix("./"), split)
    return Contests(rated, codec, aims, settings, int(recipe["seed"]))


def contrast_loss(
    decoder: Decoder, prefix: Prefix, target: TargetBatch, output_index: Tensor, beta: float
) -> tuple[Tensor, float]:
    """Return the summed logistic loss of contests laid out as `Contests` does, in nats, and the share that is won.

    Args:
        output_index: as `token_log_probabilities` takes it.
    """
    values, counts, _ = token_log_probabilities(decoder, prefix, target, output_index)
    totals = (values * counts).sum(dim=1)
    ahead = totals[0::2] - totals[1::2]
    return F.softplus(-beta * ahead).sum(), (ahead > 0).float().mean().item()
