"""The network of the `tuned` tier: the lower layers of the embedded encoder as they are, the upper ones tuned.

The lower part is frozen (`Trunk`), so it can be the very module that embeds texts for the linear heads; the upper part
(`Upper`) is a few transformer layers, mean pooling over the tokens, and one linear output for each label. Layers that
learn syntax stay, layers that learn the task move (Tenney et al., ACL 2019; Lee et al., Surgical fine-tuning, ICLR 2023).

Shapes: B texts, T tokens, d dimensions, K labels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from guardrail.bert import Bert


class Trunk:
    """Embeddings and the first layers of a BERT model, never trained.

    Args:
        bert: whose layers they are.
        layers: how many of its layers belong to the trunk.
    """

    def __init__(self, bert: Bert, layers: int) -> None:
        self._embeddings = bert.embeddings
        self._layers = bert.layers[:layers]
        self.dim = bert.config.hidden_size

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T) token ids and bool mask to (B, T, d) hidden states."""
        hidden: Tensor = self._embeddings(tokens)
        bias = attention_bias(mask)
        for layer in self._layers:
            hidden = layer(hidden, bias)
        return hidden


class Upper(nn.Module):
    """The upper layers of a BERT model, copied so that they can be trained, with K outputs on the pooled tokens.

    Args:
        bert: whose layers they are.
        first: number of its first layer that belongs here.
        outputs: K.
        dropout: on the pooled vector while training.
    """

    def __init__(self, bert: Bert, first: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in bert.layers[first:])
        self.layers.requires_grad_(True)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(bert.config.hidden_size, outputs)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, d) hidden states of the trunk and (B, T) bool mask to (B, K) logits."""
        bias = attention_bias(mask)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        weight = mask[:, :, None].to(hidden.dtype)
        pooled = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
        logits: Tensor = self.out(self.dropout(pooled))
        return logits


def attention_bias(mask: Tensor) -> Tensor | None:
    """(B, 1, 1, T) of 0 where a token may be looked at and a large negative number elsewhere; None if all may."""
    if bool(mask.all()):
        return None
    bias = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    return bias.masked_fill(~mask, torch.finfo(torch.float32).min)[:, None, None, :]


def padded(sequences: Sequence[Sequence[int]], device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Token ids of B texts to (B, T) ids, padded with 0, and their bool mask."""
    width = max(map(len, sequences))
    tokens = torch.zeros((len(sequences), width), dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, ids in enumerate(sequences):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = True
    return tokens.to(device), mask.to(device)
