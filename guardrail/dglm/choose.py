"""Which token comes next: greedy, momentum or nucleus choice, and what may not be written.

Every function works on one step of a batch: probabilities (A, V) of the A rows that are still being written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guardrail.dglm.batch import PrefixTokens

NUCLEUS = 64
"""Likeliest tokens that a nucleus is looked for in."""

MOMENTUM_TOKENS = 5
"""Tokens that momentum decoding chooses from (Lan et al. 2022, section 4.2)."""

MOMENTUM_SUFFIX = 5
"""Longest suffix that momentum decoding looks back for; a longer repetition is never written."""

_RESISTANCE = (0.0, 1.0, 3.0, 4.0, 5.0, 6.0)

Adjust = Callable[[Tensor, Tensor, "Sequence[Row]"], Tensor]
"""Steer from outside: (probabilities (A, V), decoder states (A, width), rows) -> non-negative weights (A, V)."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to write a batch of B rows.

    Attributes:
        temperature: per row, shape (B,); 0 is greedy.
        top_p: nucleus mass for rows that sample (Holtzman et al. 2020, section 3.1).
        max_tokens: longest sentence, in word pieces.
        no_repeat: n of the n-grams that may not recur, unless the draft has them; 0 allows all.
        repetition_penalty: log-probabilities of what is already written are multiplied by this (Keskar et al. 2019,
            section 4.1; DGLM uses 1.2); 1 leaves them. What the draft repeats is not penalised.
        momentum: resistance of momentum decoding for greedy rows (Lan et al. 2022; 0.2 there); 0 is plain greedy.
        seeds: per row; what a row draws then depends on its seed alone, not on its company. Empty: one generator.
        forbidden: per row, tells whether a text contains what the policy forbids, or None. A piece after which it does
            is not written, even where a longer harmless word begins like it. Empty: nothing is forbidden.
        adjust: steers the probabilities of every step, see `Adjust`.
    """

    temperature: Sequence[float]
    top_p: float = 0.9
    max_tokens: int = 96
    no_repeat: int = 3
    repetition_penalty: float = 1.0
    momentum: float = 0.0
    seeds: Sequence[int] = ()
    forbidden: Sequence[Callable[[str], bool] | None] = ()
    adjust: Adjust | None = None


@dataclass(slots=True)
class Row:
    """What one row of the batch has written so far. `index` is its place in the batch, `text` reads as written."""

    index: int
    prefix: PrefixTokens
    ids: list[int] = field(default_factory=list)
    text: str = ""
    log_probability: float = 0.0
    ended: bool = False
    stopped: bool = False


class Draws:
    """Uniform numbers in [0, 1) for sampling, from one generator or from one of each row."""

    def __init__(self, decoding: Decoding, generator: torch.Generator | None) -> None:
        self._shared = generator
        self._own = [torch.Generator().manual_seed(seed) for seed in decoding.seeds]

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Return one number per row, shape (A,)."""
        if not self._own:
            return torch.rand(len(rows), generator=self._shared)
        return torch.cat([torch.rand(1, generator=self._own[row.index]) for row in rows])


def reshape(probabilities: Tensor, rows: Sequence[Row], decoding: Decoding) -> None:
    """Apply the repetition rules in place, (A, V)."""
    for number, row in enumerate(rows):
        if decoding.repetition_penalty != 1.0 and row.ids:
            surplus = Counter(row.ids) - Counter(row.prefix.draft.ids)
            repeated = torch.tensor(sorted(surplus), dtype=torch.long, device=probabilities.device)
            probabilities[number, repeated] **= decoding.repetition_penalty
        if decoding.no_repeat > 1:
            for piece in _completing(row.ids, row.prefix.draft.ids, decoding.no_repeat):
                probabilities[number, piece] = 0.0


def _completing(written: Sequence[int], draft: Sequence[int], n: int) -> set[int]:
    """What would complete an n-gram that the row has already written, unless the draft has it."""
    if len(written) < n:
        return set()
    tail = tuple(written[-(n - 1) :])
    own = _followers(written, tail)
    return own - _followers(draft, tail) if own else own


def _followers(ids: Sequence[int], tail: tuple[int, ...]) -> set[int]:
    n = len(tail)
    return {ids[i + n] for i in range(len(ids) - n) if tuple(ids[i : i + n]) == tail}


def choose(probabilities: Tensor, rows: Sequence[Row], decoding: Decoding, draws: Draws) -> Tensor:
    """Return one id per row (A,): greedy or momentum where the temperature is 0, a nucleus sample elsewhere."""
    chosen = probabilities.argmax(dim=-1)
    sampled = [number for number, row in enumerate(rows) if decoding.temperature[row.index] > 0]
    if sampled:
        drawn = draws([rows[number] for number in sampled])
        temperature = torch.tensor([decoding.temperature[rows[number].index] for number in sampled])
        picked = _nucleus(probabilities[sampled].float().cpu(), temperature, decoding.top_p, drawn)
        chosen[sampled] = picked.to(chosen.device)
    if decoding.momentum > 0:
        for number, row in enumerate(rows):
            if decoding.temperature[row.index] == 0 and row.ids:
                chosen[number] = _momentum(probabilities[number], row, decoding.momentum)
    return chosen


def _nucleus(probabilities: Tensor, temperature: Tensor, top_p: float, drawn: Tensor) -> Tensor:
    """Sample by the inverse of the cumulative distribution; (A, V), (A,), scalar, (A,) -> ids (A,)."""
    top, order = probabilities.topk(min(NUCLEUS, probabilities.shape[1]), dim=-1)
    top = top / top.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    outside = top.cumsum(dim=-1) - top > top_p
    weights = top.clamp_min(1e-12).log().div(temperature[:, None]).exp().masked_fill(outside, 0.0)
    reached = weights.cumsum(dim=-1)
    picks = (reached <= (drawn * reached[:, -1])[:, None]).sum(dim=-1).clamp_max(weights.shape[1] - 1)
    return order.gather(1, picks[:, None]).squeeze(1)


def _momentum(probabilities: Tensor, row: Row, resistance: float) -> int:
    """Momentum decoding (Lan et al. 2022, equation 4): of the likeliest five, the largest p - resistance * f(L).

    L is the length of the longest suffix of the text, candidate included, that stands in the text already; f is the
    authors' resistance 0, 1, 3, 4, 5, 6, infinite. What the draft has at that length too meets no resistance.
    """
    values, order = probabilities.topk(MOMENTUM_TOKENS)
    scores = []
    for value, piece in zip(values.tolist(), order.tolist(), strict=True):
        length = _repeated(row.ids, piece)
        if length and _repeated(row.prefix.draft.ids, piece, row.ids) >= length:
            length = 0
        scores.append(value - resistance * _RESISTANCE[length] if length < len(_RESISTANCE) else -math.inf)
    return int(order[scores.index(max(scores))])


def _repeated(text: Sequence[int], piece: int, suffix_of: Sequence[int] | None = None) -> int:
    """Length of the longest suffix of `suffix_of` (default: the text) and `piece` that stands in the text."""
    suffix_of = text if suffix_of is None else suffix_of
    longest = 0
    for end, present in enumerate(text):
        if present != piece:
            continue
        length = 1
        while length <= min(end, len(suffix_of), MOMENTUM_SUFFIX) and text[end - length] == suffix_of[-length]:
            length += 1
        longest = max(longest, length)
    return longest
