"""How well the new words of a text rewrite its draft: their log-probability under the decoder, the draft in view.

The decoder learned from what people made of such drafts. So a word that is missing after an article is unlikely, and so is
a harmless word that nobody would have touched. It is the probability of all that is new: by a mean, a long rewording of
ordinary words would win over a short deletion, whatever becomes of the meaning. A text without a draft is new as a whole;
there the mean counts, or the shortest would win.

The candidates of one draft share most of their words, and only what is new is scored. So the texts of a draft are laid
out as one tree of tokens, in which each looks at its own ancestors alone (tree attention, Miao et al. 2024, SpecInfer,
section 4.2): a beginning that several texts share is run once, what follows the last new word not at all, and the
softmax is taken only where a new word is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from guardrail.dglm.batch import END, START, PrefixTokens, collate_prefix
from guardrail.dglm.codec import Tokens
from guardrail.dglm.decoder import Decoder
from guardrail.dglm.loss import mixture, output_index

MAX_SCORED = 200
"""Word pieces of a text that its fluency looks at."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A text to score: its tokens, those of the draft that it came from, and the latent (d,) that the decoder is told."""

    text: Tokens
    draft: Tokens
    latent: Tensor


@dataclass(slots=True)
class _Tree:
    """The texts of one draft: node 0 is the start, parents come before their children."""

    draft: Tokens
    latent: Tensor
    ids: list[int] = field(default_factory=lambda: [START])
    forms: list[int] = field(default_factory=lambda: [0])
    parents: list[int] = field(default_factory=lambda: [-1])
    children: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def node(self, parent: int, piece: int, form: int) -> int:
        """Return the child of a node for a token, which is made where there is none."""
        key = (parent, piece, form)
        if key not in self.children:
            self.children[key] = len(self.ids)
            self.ids.append(piece)
            self.forms.append(form)
            self.parents.append(parent)
        return self.children[key]

    def ancestry(self) -> tuple[Tensor, Tensor]:
        """Return which nodes each node looks at (N, N), itself included, and the depth of each (N,)."""
        looks = torch.eye(len(self.ids), dtype=torch.bool)
        for number, parent in enumerate(self.parents[1:], start=1):
            looks[number] |= looks[parent]
        return looks, looks.sum(dim=1) - 1


@torch.inference_mode()
def fluencies(decoder: Decoder, rows: Sequence[Scored], signal: float) -> list[float]:
    """Return the log-probability, in nats, of the new words of each text (their mean without a draft); 0 without any.

    New is what does not stand in the draft with the same piece before it. Words that the decoder can neither write nor copy
    do not count. One tree per draft and latent; no two requests share one.

    Args:
        signal: alpha squared that the prompt generator is told.
    """
    index = output_index(decoder)
    trees, places = _planted(rows, index.tolist())
    if not places:
        return [0.0] * len(rows)
    values = _log_probabilities(decoder, list(trees.values()), places, index, signal)
    totals, counts = [0.0] * len(rows), [0] * len(rows)
    for place, value in zip(places, values, strict=True):
        totals[place.row] += value
        counts[place.row] += 1
    return [told(total, count, bool(row.draft)) for row, total, count in zip(rows, totals, counts, strict=True)]


def told(total: float, count: int, beside_draft: bool) -> float:
    """Return the fluency that `count` new words of `total` log-probability make: see the head of this module."""
    return total if beside_draft else total / max(1, count)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a new word is predicted: of which row, in which tree, at which node, and the word's id."""

    row: int
    tree: int
    node: int
    following: int


def _planted(rows: Sequence[Scored], index: Sequence[int]) -> tuple[dict[tuple[Tokens, bytes], _Tree], list[_Place]]:
    """Return the trees of all drafts, and where in them the new words are predicted."""
    trees: dict[tuple[Tokens, bytes], _Tree] = {}
    numbers: dict[tuple[Tokens, bytes], int] = {}
    places: list[_Place] = []
    for number, row in enumerate(rows):
        key = (row.draft, row.latent.numpy().tobytes())
        tree = trees.setdefault(key, _Tree(row.draft, row.latent))
        own = numbers.setdefault(key, len(numbers))
        known = set(pairwise((START, *row.draft.ids, END))) if row.draft else set()
        copied = set(row.draft.ids)
        pairs = list(pairwise((START, *row.text.ids[:MAX_SCORED], END)))
        new = {at for at, pair in enumerate(pairs) if pair not in known and (index[pair[1]] >= 0 or pair[1] in copied)}
        node = 0
        for at in range(max(new, default=-1) + 1):
            if at:
                node = tree.node(node, row.text.ids[at - 1], row.text.forms[at - 1])
            if at in new:
                places.append(_Place(number, own, node, pairs[at][1]))
    return trees, places


def _log_probabilities(
    decoder: Decoder, trees: Sequence[_Tree], places: Sequence[_Place], index: Tensor, signal: float
) -> list[float]:
    """Run all trees as one batch and return the log-probability of each place's word."""
    device = decoder.word.weight.device
    latent = torch.stack([tree.latent for tree in trees]).to(device)
    told = torch.full((len(trees),), signal, device=device)
    prefix = collate_prefix([PrefixTokens(tree.draft) for tree in trees], decoder.prompt(latent, told)).to(device)
    states, cache, seen = decoder.encode_prefix(prefix)
    size = max(len(tree.ids) for tree in trees)
    tokens = torch.zeros(3, len(trees), size, dtype=torch.long)  # ids, forms, positions
    looks = torch.eye(size, dtype=torch.bool).repeat(len(trees), 1, 1)  # (trees, N, N); padding looks at itself
    for number, tree in enumerate(trees):
        own = len(tree.ids)
        looks[number, :own, :own], depth = tree.ancestry()
        tokens[:, number, :own] = torch.stack([torch.tensor(tree.ids), torch.tensor(tree.forms), depth])
    mask = torch.cat([seen[:, None].expand(-1, size, -1), looks.to(device)], dim=2)[:, None]
    ids, forms, positions = tokens.to(device)
    written, _ = decoder.step(ids, forms, positions, cache, mask)
    spots = {spot: number for number, spot in enumerate(dict.fromkeys((place.tree, place.node) for place in places))}
    of, nodes = torch.tensor(list(spots), device=device).T
    draft = states[of, prefix.soft.shape[1] :]
    parts = decoder.distribution(written[of, nodes][:, None], draft, prefix.copyable[of])
    row = torch.tensor([spots[place.tree, place.node] for place in places], device=device)
    tree_of = of[row]
    values, _ = mixture(
        (parts[0][row], parts[1][row], parts[2][row]),
        torch.tensor([[place.following] for place in places], device=device),
        prefix.ids[tree_of],
        prefix.copyable[tree_of],
        index,
    )
    found: list[float] = values[:, 0].tolist()
    return found
