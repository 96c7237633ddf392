"""Linear heads from 5 to 50 examples on each side.

With so few examples every direction of the space separates them, so most of the work is to say which separation is
meant. Three things do:

- contrast: a logistic regression of yes against no, whose strong penalty keeps it close to the difference between the
  two sides' means (of all directions the one that sets most of their pairs apart);
- the shipped heads as prior: in the directions that they know, weights cost less, so a topic near toxicity or courtesy
  is learned along what is known of these (`PRIOR` times the scale there, and so 1 / PRIOR^2 of the penalty);
- the background: everyday texts count as further negatives, half of that weight on the ones that look most like the
  positive side (hard negatives), so that a head does not fire on what merely shares its style.

A sentence on what the head is about, if given, joins as a direction of its own, the fewer examples the stronger. The
scale comes from Platt scaling of cross-validated scores (Platt 1999), background included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from guardrail.classifiers.linear import make_head
from guardrail.encoder import Encoder, Vectors
from guardrail.errors import DataError
from guardrail.policy.bundle import LinearHead
from guardrail.text.normalise import fold

__all__ = ["FEWEST", "MOST", "Examples", "FewShot", "examples_from", "overlap", "train_few"]

Floats = npt.NDArray[np.float64]

VERSION: Final = "1"
FEWEST: Final = 5
MOST: Final = 1_000
"""Examples for each side. Beyond some fifty, `guardrail heads train --data` does better."""

PRIOR: Final = 1.5
SHARE: Final = 0.15
"""Part of the negative weight that falls on the background."""
HARD: Final = 60
"""Background texts that count as hard negatives."""
ABOUT_EXAMPLES: Final = 5.0
"""Examples on the smaller side that a sentence on the topic weighs as much as."""
SAME: Final = 0.93
"""Cosine from which two examples on different sides say nearly the same."""
FOLDS: Final = 5
NOTHING: Final = ("This text is about something else.", "something", "a text", "everyday life")


@dataclass(frozen=True, slots=True)
class Examples:
    """What a head is taught with: texts that it should find, texts that it should not, and what it is about."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    about: str = ""

    def plain(self) -> dict[str, Any]:
        """Plain values, for hashing; the order of the examples does not matter."""
        return {"positive": sorted(self.positive), "negative": sorted(self.negative), "about": self.about}


@dataclass(frozen=True, slots=True)
class FewShot:
    """A head, what was odd about its examples, and AUROC on examples left out in turn (optimistic: they are few)."""

    head: LinearHead
    warnings: tuple[str, ...] = field(default=())
    auroc: float | None = None


def examples_from(value: object, where: str) -> Examples:
    """Check plain values of an examples file or of a policy.

    Args:
        value: `{positive: [text], negative: [text], about: text}`.
        where: named in messages.

    Raises:
        DataError: another shape, a side without texts or with too few, or too many.
    """
    if not isinstance(value, Mapping):
        raise DataError("expected `positive` and `negative`, each a list of texts", file=where)
    unknown = sorted(str(key) for key in set(value) - {"positive", "negative", "about"})
    if unknown:
        raise DataError(f"unknown key {unknown[0]!r}; expected positive, negative, about", file=where)
    about = value.get("about", "")
    if not isinstance(about, str):
        raise DataError(f"`about` must be a sentence, not {about!r}", file=where)
    found = Examples(_side(value, "positive", where), _side(value, "negative", where), about.strip())
    for side, texts in (("positive", found.positive), ("negative", found.negative)):
        if not texts:
            raise DataError(f"no {side} example: a head cannot be learned from one side alone", file=where)
        if len(texts) < FEWEST:
            raise DataError(f"{len(texts)} different {side} examples; at least {FEWEST} are needed", file=where)
        if len(texts) > MOST:
            raise DataError(
                f"{len(texts):,} {side} examples; for more than {MOST:,} use: guardrail heads train --data", file=where
            )
    return found


def _side(value: Mapping[Any, Any], side: str, where: str) -> tuple[str, ...]:
    texts = value.get(side) or []
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise DataError(f"`{side}` must be a list of texts, not {texts!r}", file=where)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"`{side}` must be a list of texts, and {text!r} is in it", file=where)
    return tuple({key_of(text): text for text in texts}.values())


def key_of(text: str) -> str:
    """What makes two texts the same: letters and digits, whatever their case, accents, spaces and signs."""
    return "".join(char for char in fold(text).text if char.isalnum()) or " ".join(text.split())


def overlap(examples: Examples, texts: Sequence[str]) -> list[str]:
    """Those of `texts` that are among the examples: to measure a head on them proves nothing."""
    known = {key_of(text) for text in (*examples.positive, *examples.negative)}
    return [text for text in texts if key_of(text) in known]


def train_few(
    name: str, examples: Examples, encoder: Encoder, prior: Sequence[LinearHead], background: Vectors, seed: int = 0
) -> FewShot:
    """Train a head.

    Args:
        name: what it measures.
        examples: both sides; what stands on both is left out, with a warning.
        encoder: whose space it lives in.
        prior: heads of that space, possibly none.
        background: (B, d) unit vectors of everyday texts.
        seed: of the folds.

    Raises:
        DataError: without contradictions too few examples are left.
    """
    examples, warnings = _consistent(examples)
    positive = encoder.encode(examples.positive).astype(np.float64)
    negative = encoder.encode(examples.negative).astype(np.float64)
    warnings += _near(examples, positive, negative)
    scale = _prior_scale(prior, encoder.dim)
    about = _about(encoder, examples.about)
    everyday = background.astype(np.float64)
    weight = _direction(positive, negative, everyday, scale, about)
    held = _cross_validated(positive, negative, everyday, scale, about, seed)
    slope, bias = _platt(held, everyday @ weight, len(positive))
    head = make_head(name, slope * weight, bias, encoder.sha256)
    return FewShot(head, tuple(warnings), _auroc(held[: len(positive)], held[len(positive) :]))


def _consistent(examples: Examples) -> tuple[Examples, list[str]]:
    sides = [{key_of(text): text for text in side} for side in (examples.positive, examples.negative)]
    both = sides[0].keys() & sides[1].keys()
    if not both:
        return examples, []
    quoted = ", ".join(repr(sides[0][key][:60]) for key in sorted(both)[:3])
    kept = [tuple(text for key, text in side.items() if key not in both) for side in sides]
    if min(map(len, kept)) < FEWEST:
        raise DataError(f"{len(both)} examples stand on both sides ({quoted}), and too few others are left")
    return Examples(kept[0], kept[1], examples.about), [
        f"{len(both)} examples stand on both sides and are left out: {quoted}"
    ]


def _near(examples: Examples, positive: Floats, negative: Floats) -> list[str]:
    cosine = positive @ negative.T
    pairs = np.argwhere(cosine >= SAME)
    return [
        f"nearly the same on both sides: {examples.positive[row][:60]!r} and {examples.negative[column][:60]!r}"
        for row, column in pairs[:3]
    ]


def _prior_scale(prior: Sequence[LinearHead], dim: int) -> Floats:
    """(d, d) symmetric map that stretches the span of the prior's weights by `PRIOR`."""
    if not prior:
        return np.eye(dim)
    basis, _ = np.linalg.qr(np.stack([head.weight for head in prior], axis=1).astype(np.float64))
    return np.asarray(np.eye(dim) + (PRIOR - 1.0) * basis @ basis.T)


def _about(encoder: Encoder, about: str) -> Floats | None:
    """Unit direction from nothing in particular towards the topic."""
    if not about:
        return None
    topic, nothing = encoder.encode([about, f"This text is about {about}."]), encoder.encode(NOTHING)
    towards = (topic.mean(axis=0) - nothing.mean(axis=0)).astype(np.float64)
    return np.asarray(towards / np.linalg.norm(towards))


def _direction(positive: Floats, negative: Floats, everyday: Floats, scale: Floats, about: Floats | None) -> Floats:
    """(d,) unit weight."""
    from sklearn.linear_model import LogisticRegression

    contrast = positive.mean(axis=0) - negative.mean(axis=0)
    hard = everyday[np.argsort(-(everyday @ contrast))[:HARD]]
    parts = (positive, negative, everyday, hard)
    half = (len(positive) + len(negative)) / 2
    shares = (1.0, 1.0 - SHARE, SHARE / 2, SHARE / 2)
    weights = np.concatenate(
        [np.full(len(part), share * half / max(1, len(part))) for part, share in zip(parts, shares, strict=True)]
    )
    y = np.concatenate([np.full(len(part), place == 0) for place, part in enumerate(parts)])
    model = LogisticRegression(C=1.0, max_iter=500).fit(np.concatenate(parts) @ scale, y, sample_weight=weights)
    weight = scale @ model.coef_[0]
    weight /= np.linalg.norm(weight)
    if about is not None:
        weight = weight + min(1.0, ABOUT_EXAMPLES / min(len(positive), len(negative))) * about
    return np.asarray(weight / np.linalg.norm(weight))


def _cross_validated(
    positive: Floats, negative: Floats, everyday: Floats, scale: Floats, about: Floats | None, seed: int
) -> Floats:
    """(P + N,) projections of each example on a direction that was found without it."""
    rng = np.random.default_rng(seed)
    sides = (positive, negative)
    folds = [rng.permutation(np.arange(len(side)) % min(FOLDS, len(side))) for side in sides]
    held = [np.empty(len(side)) for side in sides]
    for fold_number in range(max(int(one.max()) for one in folds) + 1):
        kept = [side[one != fold_number] for side, one in zip(sides, folds, strict=True)]
        weight = _direction(kept[0], kept[1], everyday, scale, about)
        for side, one, values in zip(sides, folds, held, strict=True):
            values[one == fold_number] = side[one == fold_number] @ weight
    return np.concatenate(held)


def _platt(held: Floats, everyday: Floats, positives: int) -> tuple[float, float]:
    """Slope and bias of the log odds: positives weigh as much as negatives, and the background as both."""
    from sklearn.linear_model import LogisticRegression

    values = np.concatenate((held, everyday))
    y = np.concatenate((np.ones(positives), np.zeros(len(values) - positives)))
    negatives = len(held) - positives
    weight = np.concatenate(
        (
            np.full(positives, 20.0 / positives),
            np.full(negatives, 20.0 / negatives),
            np.full(len(everyday), 40.0 / max(1, len(everyday))),
        )
    )
    spread = float(values.std()) or 1.0
    model = LogisticRegression(C=10.0).fit(values[:, None] / spread, y, sample_weight=weight)
    slope = max(float(model.coef_[0, 0]), 1e-3) / spread  # examples that contradict each other leave a flat head
    return slope, float(model.intercept_[0])


def _auroc(positive: Floats, negative: Floats) -> float:
    difference = positive[:, None] - negative[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
