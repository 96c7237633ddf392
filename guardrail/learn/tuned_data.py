"""What the tuned tier learns from: a sample of the labelled rows that no source dominates, as tokens, targets, weights.

The hidden states of the frozen lower layers are computed once and kept on disk (`TrunkStates`): every epoch after the
first, and every further run on the same rows, costs the upper layers only.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from guardrail.classifiers.network import Trunk, padded
from guardrail.evaluate.data import LabelledText, labels_of
from guardrail.evaluate.disguise import disguise
from guardrail.evaluate.heads import HARM_LABELS
from guardrail.learn.invariance import counterfactuals, swap_groups
from guardrail.learn.weighting import TOTAL, row_weights

Floats = npt.NDArray[np.float32]

CHARACTERS = 320
"""Of a longer text this many are read, from its start or around the part that carries its labels."""
MAX_TOKENS = 64
BATCH_TOKENS = 1_024
GROUP_SENTENCES = 16
"""Of each template of `guardrail.learn.invariance` so many of its groups are named."""
CAPS: Mapping[str, int] = {
    **dict.fromkeys(("germeval2018", "korean-hate"), 200),
    **dict.fromkeys(("masc", "wikitext2", "wiki-demo", "t0-open", "oasst-model-eval", "qmsum-meetings"), 300),
    **dict.fromkeys(("ubuntu-irc", "gpteacher-roleplay", "bipia"), 400),
    **dict.fromkeys(("github-incivility", "coconot-contrast", "gptfuzz-refusal", "diasafety"), 800),
    **dict.fromkeys(("goemotions", "own-repairs"), 2_500),
}
DISGUISES = ("leet", "spaced", "repeated", "homoglyph", "mixed")
DISGUISED_CHARACTERS = 160
"""Only a text of at most so many is disguised: the disguise of a long one would push its end out of what is read."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How rows are drawn.

    Attributes:
        cap: rows of a source and side (some positive label, or none) at most.
        caps: other caps, for sources in which most rows say the same or in a language that the encoder cannot read.
        keep: positives of labels that are rarer than this are never cut.
        swap: share of the texts that name a group of people which are read with another group's name instead.
        disguise: share of the short texts, harmful or not, in which some words are disguised.
        seed: of the draw, of the swapped groups and of the disguises.
    """

    cap: int = 1_200
    caps: Mapping[str, int] = field(default_factory=lambda: dict(CAPS))
    keep: int = 1_200
    swap: float = 0.3
    disguise: float = 0.06
    seed: int = 0


def draw(rows: Sequence[LabelledText], heads: Sequence[str], sampling: Sampling) -> list[LabelledText]:
    """Return a sample in which no source dominates, each text cut to what is read of it, some groups swapped, some disguised."""
    rng = random.Random(sampling.seed)  # noqa: S311 (seeded, to be repeatable)
    positives = {head: int((labels_of(rows, head) >= 0.5).sum()) for head in heads}
    rare = {head for head, count in positives.items() if count < sampling.keep}
    strata: dict[tuple[str, bool], list[LabelledText]] = {}
    kept: list[LabelledText] = []
    for row in rows:
        up = {head for head, value in row.labels.items() if value >= 0.5 and head in positives}
        if up & rare:
            kept.append(row)
        else:
            strata.setdefault((row.source, bool(up)), []).append(row)
    for (source, _), members in sorted(strata.items()):
        rng.shuffle(members)
        kept.extend(members[: sampling.caps.get(source, sampling.cap)])
    return [_read_as(row, rng, sampling) for row in kept]


def _read_as(row: LabelledText, rng: random.Random, sampling: Sampling) -> LabelledText:
    start = max(0, row.spans[0][0] - CHARACTERS // 3) if row.spans else 0
    text = row.text[start : start + CHARACTERS]
    if rng.random() < sampling.swap:
        text = swap_groups(text, rng)
    if len(text) <= DISGUISED_CHARACTERS and rng.random() < sampling.disguise:
        text = disguise(text, rng.choice(DISGUISES), share=rng.uniform(0.2, 1.0))
    return replace(row, text=text, spans=())


def targets(rows: Sequence[LabelledText], heads: Sequence[str]) -> Floats:
    """(N, K) labels, NaN where unknown."""
    return np.stack([labels_of(rows, head) for head in heads], axis=1).astype(np.float32)


def loss_weights(rows: Sequence[LabelledText], labels: Floats) -> tuple[Floats, Floats]:
    """Return (N, K) positive and (N, K) negative weights; 0 where a label is unknown.

    Inside a label sources are levelled as for linear heads (`guardrail.learn.weighting`); a label counts as the square
    root of its positives, so that a rare one is heard and does not drown the others. The weights of all rows and
    labels have mean 1 over the rows.
    """
    sources = np.array([row.source for row in rows])
    emphasis = np.array([row.weight for row in rows], dtype=np.float64)
    up, down = np.zeros(labels.shape), np.zeros(labels.shape)
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        y = labels[known, column].astype(np.float64)
        share = float(np.sqrt(y.sum())) / TOTAL
        plus, minus = row_weights(sources[known], y, emphasis=emphasis[known])
        up[known, column], down[known, column] = plus * share, minus * share
    scale = len(rows) / float(up.sum() + down.sum())
    return (up * scale).astype(np.float32), (down * scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class TrunkStates:
    """Hidden states of the frozen lower layers for N token sequences, on disk as float16.

    Attributes:
        sequences: token ids of each row, cut to `MAX_TOKENS`.
        folder: where `hidden.f16` and `progress.json` lie.
        dim: width d.
    """

    sequences: list[list[int]]
    folder: Path
    dim: int

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(N + 1,) where each row's states start."""
        return np.concatenate(([0], np.cumsum([len(ids) for ids in self.sequences]))).astype(np.int64)

    def states(self, mode: Any = "r") -> np.memmap[Any, np.dtype[np.float16]]:
        """(tokens of all rows, d) float16."""
        shape = (int(self.offsets[-1]), self.dim)
        return np.memmap(self.folder / "hidden.f16", dtype=np.float16, mode=mode, shape=shape)

    def fill(self, trunk: Trunk, deadline: float = np.inf, advance: Callable[[int], None] | None = None) -> bool:
        """Compute what is missing, until `deadline` (of `time.monotonic`); return whether all is there now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        progress, path = self.folder / "progress.json", self.folder / "hidden.f16"
        done = int(json.loads(progress.read_text())["batches"]) if progress.is_file() and path.is_file() else 0
        batches = by_length(self.sequences, 4 * BATCH_TOKENS)
        if done >= len(batches):
            return True
        hidden, offsets = self.states("r+" if path.is_file() else "w+"), self.offsets
        for number in range(done, len(batches)):
            rows = batches[number]
            tokens, mask = padded([self.sequences[row] for row in rows])
            out = trunk(tokens, mask).half().numpy()
            for place, row in enumerate(rows):
                hidden[offsets[row] : offsets[row + 1]] = out[place, : len(self.sequences[row])]
            if advance is not None:
                advance(len(rows))
            late = time.monotonic() > deadline
            if late or number % 10 == 9 or number == len(batches) - 1:
                hidden.flush()
                progress.write_text(json.dumps({"batches": number + 1, "of": len(batches)}))
            if late:
                return number == len(batches) - 1
        return True

    def batch(
        self, rows: Sequence[int], states: np.memmap[Any, np.dtype[np.float16]], offsets: npt.NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, d) float32 states of some rows, padded with zeros, and their (B, T) bool mask."""
        lengths = [len(self.sequences[row]) for row in rows]
        hidden = torch.zeros((len(rows), max(lengths), self.dim))
        mask = torch.zeros((len(rows), max(lengths)), dtype=torch.bool)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            hidden[place, :length] = torch.from_numpy(states[offsets[row] : offsets[row + 1]].astype(np.float32))
            mask[place, :length] = True
        return hidden, mask


def cut(ids: Sequence[int], limit: int = MAX_TOKENS) -> list[int]:
    """Keep the last token, which closes the sequence ([SEP])."""
    return list(ids) if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def by_length(
    sequences: Sequence[Sequence[int]], budget: int = BATCH_TOKENS, rng: np.random.Generator | None = None
) -> list[list[int]]:
    """Batches of row numbers of similar length, rows x longest within `budget` tokens.

    With `rng` rows of equal length are shuffled, lengths are blurred a little, and the batches come in random order.
    """
    lengths = np.array([len(ids) for ids in sequences], dtype=np.float64)
    blurred = lengths if rng is None else lengths * rng.uniform(0.9, 1.1, len(lengths))
    order = np.argsort(-blurred, kind="stable")
    batches: list[list[int]] = []
    current: list[int] = []
    longest = 0
    for row in order.tolist():
        longest = max(longest, int(lengths[row]))
        if current and (len(current) + 1) * longest > budget:
            batches.append(current)
            current, longest = [], int(lengths[row])
        current.append(row)
    if current:
        batches.append(current)
    if rng is not None:
        rng.shuffle(batches)
    return batches


def rows_to_learn(rows: Sequence[LabelledText], heads: Sequence[str], sampling: Sampling) -> list[LabelledText]:
    """The training rows that the tuned tier sees: a draw of them, and harmless sentences that name every group."""
    drawn = draw([row for row in rows if row.split == "train"], heads, sampling)
    harmless = {head: 0.0 for head in heads if head in HARM_LABELS}
    rng = random.Random(sampling.seed)  # noqa: S311 (seeded, to be repeatable)
    sentences = [text for group in counterfactuals() for text in rng.sample(group, GROUP_SENTENCES)]
    drawn.extend(LabelledText(text, harmless, "own-groups") for text in sentences)
    return drawn
