"""Baselines that steer a decoder token by token: GeDi and rectification. They plug into `Decoding.adjust`.

Both are trained when they are needed, on the sets that the policy's heads were trained on, so that they know what our
guide knows; the judge that compares them was trained on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guardrail.dglm.batch import EMPTY, PrefixTokens, collate_prefix, collate_target
from guardrail.dglm.choose import Row
from guardrail.dglm.corpus import detokenise, read_rows
from guardrail.dglm.decoder import causal_mask
from guardrail.evaluate.ngrams import Floats, NGramModel, Tokenise
from guardrail.text.segment import sentences

if TYPE_CHECKING:
    from guardrail.dglm.pipeline import Pipeline

GUIDE_FILES = ("jigsaw-part", "s-nlp-detox", "davidson", "hatexplain")
"""Sets of the shared data, split train, that the shipped toxicity head was trained on too."""

TOP = 256
"""Tokens of the largest weight that GeDi's filter looks at; the rest has next to none."""


def labelled_sentences(data: Path, seed: int = 0, cap: int = 4_000) -> tuple[list[str], list[str]]:
    """Return (toxic, harmless) texts of `GUIDE_FILES`, at most `cap` of each per file; a harmless text, by sentences."""
    rng = np.random.default_rng(seed)
    toxic: list[str] = []
    harmless: list[str] = []
    for name in GUIDE_FILES:
        rows = list(_train_rows(data / "labelled" / f"{name}.jsonl.gz"))
        shuffled = [rows[index] for index in rng.permutation(len(rows))]
        toxic += [text for text, bad in shuffled if bad and len(text.split()) <= 40][:cap]
        harmless += [part for text, bad in shuffled if not bad for part in _parts(text)][:cap]
    return toxic, harmless


def _train_rows(path: Path) -> Iterator[tuple[str, bool]]:
    for row in read_rows(path):
        value = row["labels"].get("toxicity")
        if row.get("split", "train") == "train" and value is not None and value != 0.5:
            yield detokenise(row["text"]), value > 0.5


def _parts(text: str) -> list[str]:
    return [text[a:b].strip() for a, b in sentences(text) if 2 <= len(text[a:b].split()) <= 40]


class GeDi:
    """Bayes over two class-conditional language models (Krause et al. 2021, equations 4 to 8); for one batch.

    P(good | x) is proportional to the product of p(x_j | x_<j, good)^(1 / T); next-token weights are
    p(v) P(good | x, v)^weight, and only the tokens likeliest to be good, up to a share of `keep` of the weight, are kept.
    The class-conditional models are trigrams over the decoder's own word pieces, not GPT-2 as in the paper: no such
    model can be had here. Class priors are equal.

    Args:
        good, bad: the models of both classes. weight: omega; 30 in the paper. keep: rho; 0.8 in the paper.
    """

    def __init__(self, good: NGramModel, bad: NGramModel, weight: float = 30.0, keep: float = 0.8) -> None:
        self._models, self._weight, self._keep = (good, bad), weight, keep
        self._so_far: dict[int, float] = {}
        self._last: dict[int, Floats] = {}

    def __call__(self, probabilities: Tensor, states: Tensor, rows: Sequence[Row]) -> Tensor:
        """Weigh the next tokens, see `guardrail.dglm.choose.Adjust`."""
        odds = np.stack([self._log_odds(row) for row in rows])  # (A, V): of the text with each next token
        lengths = np.array([len(row.ids) + 1 for row in rows])[:, None]
        good = torch.from_numpy(1.0 / (1.0 + np.exp(-np.clip(odds / lengths, -30, 30)))).to(probabilities)
        weights = probabilities * good**self._weight
        weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-30)
        top, ids = weights.topk(min(TOP, weights.shape[1]), dim=1)
        order = good.gather(1, ids).argsort(dim=1, descending=True)
        top, ids = top.gather(1, order), ids.gather(1, order)
        kept = top * (top.cumsum(dim=1) - top < self._keep)
        return torch.zeros_like(weights).scatter(1, ids, kept)

    def _log_odds(self, row: Row) -> Floats:
        if row.ids and row.index in self._last:
            self._so_far[row.index] = float(self._last[row.index][row.ids[-1]])
        good, bad = (np.log(model.distribution(row.ids)) for model in self._models)
        self._last[row.index] = self._so_far.get(row.index, 0.0) + good - bad
        return self._last[row.index]


class DeadEnds(nn.Module):
    """Q(s, a) in [-1, 0] of a token a after a decoder state s: how surely the text ends toxic (Cao et al. 2023).

    Q = -sigmoid(U s . e_a + b), with e_a the decoder's own embedding of the token.

    Args:
        embeddings: (V, width) of the decoder, kept as they are.
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.register_buffer("embeddings", F.normalize(embeddings.detach().float(), dim=1), persistent=False)
        width = embeddings.shape[1]
        self.state = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.bias = nn.Linear(width, 1)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Q of one action per state; (N, width), (N,) -> (N,)."""
        own = (self.state(states) * self.embeddings[actions]).sum(dim=-1)
        return -torch.sigmoid(own + self.bias(self.embeddings[actions]).squeeze(-1))

    def all_actions(self, states: Tensor) -> Tensor:
        """Q of every action; (A, width) -> (A, V)."""
        return -torch.sigmoid(self.state(states) @ self.embeddings.T + self.bias(self.embeddings).squeeze(-1))


class Rectification:
    """Cap the probability of each token at 1 + Q(s, a) - epsilon (Cao et al. 2023, section 4, dead-end theory).

    Args:
        values: trained by `train_dead_ends`. epsilon: how much is forgone beyond the bound.
    """

    def __init__(self, values: DeadEnds, epsilon: float = 0.3) -> None:
        self._values, self._epsilon = values, epsilon

    def __call__(self, probabilities: Tensor, states: Tensor, rows: Sequence[Row]) -> Tensor:
        """Weigh the next tokens, see `guardrail.dglm.choose.Adjust`."""
        total = probabilities.sum(dim=1, keepdim=True).clamp_min(1e-30)
        cap = (1.0 + self._values.all_actions(states.float()) - self._epsilon).clamp_min(0.0)
        capped = torch.minimum(probabilities / total, cap)
        return torch.where(capped.sum(dim=1, keepdim=True) > 0, capped, probabilities)


def train_class_models(
    tokenise: Tokenise, vocabulary: int, toxic: Sequence[str], harmless: Sequence[str]
) -> tuple[NGramModel, NGramModel]:
    """Return the (good, bad) trigram models of `GeDi`."""
    return NGramModel(tokenise(harmless), vocabulary), NGramModel(tokenise(toxic), vocabulary)


def train_dead_ends(
    pipeline: Pipeline,
    toxic: Sequence[str],
    harmless: Sequence[str],
    *,
    updates: int = 400,
    batch: int = 1024,
    seed: int = 0,
) -> DeadEnds:
    """Learn `DeadEnds` by SARSA on finished texts: reward -1 at the end of a toxic one, 0 elsewhere, no discount.

    The texts are read by the decoder after soft prompts of the mean embedding, which say nothing, so that Q depends on
    the words. A slowly following copy gives the targets.

    Args:
        updates: optimiser steps. batch: state-action pairs in each.
    """
    torch.manual_seed(seed)
    states, actions, following, rewards = _transitions(pipeline, toxic, harmless)
    values, targets = DeadEnds(pipeline.decoder.word.weight), DeadEnds(pipeline.decoder.word.weight)
    targets.load_state_dict(values.state_dict())
    optimiser = torch.optim.AdamW(values.parameters(), lr=1e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        chosen = torch.randint(len(states), (batch,), generator=generator)
        after = following[chosen]
        with torch.no_grad():
            later = targets(states[after.clamp_min(0)], actions[after.clamp_min(0)]) * (after >= 0)
        loss = F.mse_loss(values(states[chosen], actions[chosen]), (rewards[chosen] + later).clamp(-1.0, 0.0))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(targets.parameters(), values.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
    return values.eval().requires_grad_(False)


@torch.no_grad()
def _transitions(
    pipeline: Pipeline, toxic: Sequence[str], harmless: Sequence[str], limit: int = 24, rows: int = 64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return states (N, width), actions (N,), the index of the following pair (N,) or -1, and rewards (N,)."""
    texts = [(text, -1.0) for text in toxic] + [(text, 0.0) for text in harmless]
    decoder, device = pipeline.decoder, pipeline.decoder.word.weight.device
    states, actions, following, rewards = [], [], [], []
    count = 0
    for start in range(0, len(texts), rows):
        part = texts[start : start + rows]
        latent = torch.zeros(len(part), decoder.config.latent_dim, device=device)
        soft = decoder.prompt(latent, torch.full((len(part),), 0.95, device=device))
        prefix = collate_prefix([PrefixTokens(EMPTY)] * len(part), soft).to(device)
        target = collate_target([pipeline.codec.encode(text, limit) for text, _ in part]).to(device)
        _, cache, seen = decoder.encode_prefix(prefix)
        length = target.ids.shape[1]
        positions = torch.arange(length, device=device).expand_as(target.ids)
        written, _ = decoder.step(target.ids, target.forms, positions, cache, causal_mask(seen, length))
        for row, (_, reward) in enumerate(part):
            own = int(target.weight[row].sum())
            states.append(written[row, :own].float().cpu())
            actions.append(target.next_ids[row, :own].cpu())
            following.append(torch.tensor([*range(count + 1, count + own), -1]))
            rewards.append(torch.tensor([0.0] * (own - 1) + [reward]))
            count += own
    return torch.cat(states), torch.cat(actions), torch.cat(following), torch.cat(rewards)
