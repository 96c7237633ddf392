"""The shipped decoder: a prefix language model warm-started from the sentence encoder itself.

Sequence: soft tokens of the wanted embedding, context, draft, then the sentence being written. The prefix attends to
    itself
in both directions (as the encoder's layers were trained to); what is written attends to the prefix and its own past
(prefix LM, Raffel et al. 2020, section 3.2.1). What is written is a mixture of a softmax over frequent pieces and a
copy of a piece of the draft (pointer-generator, See et al. 2017, section 2.2), so that names and rare words survive.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guardrail.dglm.codec import FORMS
from guardrail.dglm.prompt import PromptGenerator

DRAFT, CONTEXT, TARGET, SOFT = 0, 1, 2, 3  # segment ids
SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes of the decoder; they travel in its checkpoint.

    `output_ids` are the vocabulary ids that the softmax can write; any other id can only be copied from the draft.
    """

    latent_dim: int = 384
    width: int = 384
    layers: int = 6
    heads: int = 12
    feed_forward: int = 1536
    vocabulary: int = 30522
    positions: int = 512
    soft_tokens: int = 8
    prompt_layers: int = 1
    layer_norm_eps: float = 1e-12
    output_ids: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint's metadata."""
        return asdict(self)


@dataclass(slots=True)
class Prefix:
    """A batch of prefixes, padded on the right.

    ids, forms, segments, positions: (B, P) int64; mask: (B, P) bool, True where a token stands; copyable: (B, P) bool,
    True for draft tokens; soft: (B, soft_tokens, width).
    """

    ids: Tensor
    forms: Tensor
    segments: Tensor
    positions: Tensor
    mask: Tensor
    copyable: Tensor
    soft: Tensor

    def to(self, device: torch.device) -> Prefix:
        """Return the prefix on a device."""
        parts = (self.ids, self.forms, self.segments, self.positions, self.mask, self.copyable, self.soft)
        return Prefix(*(part.to(device) for part in parts))


Cache = list[tuple[Tensor, Tensor]]


class Block(nn.Module):
    """One post-norm transformer layer with BERT's parameters (Devlin et al. 2019)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_1 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.up = nn.Linear(config.width, config.feed_forward)
        self.down = nn.Linear(config.feed_forward, config.width)
        self.norm_2 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(
        self, x: Tensor, mask: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, width), mask (B, 1, T, S) bool, True where it may look; returns output and (keys, values)."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, heads, T, width / heads)
        x = self.norm_1(x + self.out(attended.transpose(1, 2).reshape(batch, length, width)))
        x = self.norm_2(x + self.down(F.gelu(self.up(x))))
        return x, (k, v)


class Decoder(nn.Module):
    """Write a sentence that has a wanted embedding, with a draft in view."""

    output_ids: Tensor
    output_words: Tensor | None

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.positions, config.width)
        self.segment = nn.Embedding(SEGMENTS, config.width)
        self.form = nn.Embedding(FORMS, config.width)
        nn.init.zeros_(self.form.weight)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.prompt = PromptGenerator(config.latent_dim, config.width, config.soft_tokens, config.prompt_layers)
        self.transform = nn.Linear(config.width, config.width)
        self.transform_norm = nn.LayerNorm(config.width)
        self.bias = nn.Parameter(torch.zeros(len(config.output_ids)))
        self.copy_query = nn.Linear(config.width, config.width)
        self.copy_key = nn.Linear(config.width, config.width)
        self.copy_gate = nn.Linear(2 * config.width, 1)
        self.form_hidden = nn.Linear(3 * config.width, config.width // 2)
        self.form_out = nn.Linear(config.width // 2, FORMS)
        self.register_buffer("output_ids", torch.tensor(config.output_ids, dtype=torch.long), persistent=False)
        self.register_buffer("output_words", None, persistent=False)

    def freeze(self) -> Decoder:
        """Return the decoder, ready to write and no longer to be trained: the words of the softmax are gathered once."""
        self.eval().requires_grad_(False)
        self.output_words = self.word.weight[self.output_ids].contiguous()
        return self

    def embed(self, ids: Tensor, forms: Tensor, segments: Tensor, positions: Tensor) -> Tensor:
        """Return input embeddings (B, T, width) of int64 tensors (B, T)."""
        summed = self.word(ids) + self.form(forms) + self.segment(segments) + self.position(positions)
        normed: Tensor = self.norm(summed)
        return normed

    def encode_prefix(self, prefix: Prefix) -> tuple[Tensor, Cache, Tensor]:
        """Return the prefix's last states (B, S+P, width), the cache, and the mask (B, S+P) of what may be seen."""
        tokens = self.embed(prefix.ids, prefix.forms, prefix.segments, prefix.positions)
        soft = prefix.soft + self.segment.weight[SOFT]
        x = torch.cat([soft, tokens], dim=1)
        seen = torch.cat([prefix.mask.new_ones(soft.shape[:2]), prefix.mask], dim=1)  # (B, S+P)
        mask = seen[:, None, None, :].expand(-1, -1, x.shape[1], -1)
        cache: Cache = []
        for block in self.blocks:
            x, kv = block(x, mask)
            cache.append(kv)
        return x, cache, seen

    def step(self, ids: Tensor, forms: Tensor, positions: Tensor, cache: Cache, mask: Tensor) -> tuple[Tensor, Cache]:
        """Run written tokens (B, T) on a cache, mask (B, 1, T, S); return states (B, T, width) and the longer cache."""
        x = self.embed(ids, forms, torch.full_like(ids, TARGET), positions)
        longer: Cache = []
        for block, past in zip(self.blocks, cache, strict=True):
            x, kv = block(x, mask, past)
            longer.append(kv)
        return x, longer

    def copy_attention(
        self, states: Tensor, draft: Tensor, copyable: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return attention over the draft (B, T, P) and its summary (B, T, width); zeros where there is no draft."""
        keys = self.copy_key(draft) if keys is None else keys
        scores = self.copy_query(states) @ keys.transpose(1, 2) / self.config.width**0.5
        scores = scores.float().masked_fill(~copyable[:, None, :], -1e9)
        attention = scores.softmax(dim=-1) * copyable[:, None, :]
        return attention, attention.to(draft.dtype) @ draft

    def distribution(
        self, states: Tensor, draft: Tensor, copyable: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the next token is drawn from.

        Args:
            states: (B, T, width) of written tokens. draft: (B, P, width) last states of the prefix tokens.
            copyable: (B, P) bool. keys: `copy_key` of `draft` (B, P, width), for a caller that asks step by step.

        Returns:
            log-softmax over `output_ids` (B, T, V), log attention over prefix tokens (B, T, P), log of the gate
            (B, T, 2) for (write, copy), and the summary (B, T, width) of what is being copied.
        """
        attention, summary = self.copy_attention(states, draft, copyable, keys)
        logits = self._write_logits(states)
        gate = self.copy_gate(torch.cat([states, summary], dim=-1)).float()  # (B, T, 1)
        gate = gate.masked_fill(~copyable.any(dim=1)[:, None, None], -30.0)
        log_gate = torch.cat([F.logsigmoid(-gate), F.logsigmoid(gate)], dim=-1)
        return logits.float().log_softmax(dim=-1), attention.clamp_min(1e-9).log(), log_gate, summary

    def _write_logits(self, states: Tensor) -> Tensor:
        """Return logits over `output_ids` (B, T, V)."""
        hidden = self.transform_norm(F.gelu(self.transform(states)))
        if self.output_words is None:
            return F.linear(hidden, self.word.weight[self.output_ids], self.bias)
        columns = hidden.flatten(0, 1).t().contiguous()  # words first: half the time for few columns on a CPU
        logits: Tensor = (self.output_words @ columns).t().contiguous().unflatten(0, hidden.shape[:2]) + self.bias
        return logits

    def form_logits(self, states: Tensor, summary: Tensor, next_ids: Tensor) -> Tensor:
        """Return logits (B, T, FORMS) of the next token's form, given which token it is, ids (B, T)."""
        features = torch.cat([states, summary, self.word(next_ids)], dim=-1)
        logits: Tensor = self.form_out(F.gelu(self.form_hidden(features)))
        return logits.float()


def causal_mask(seen: Tensor, length: int, written: int = 0) -> Tensor:
    """Mask (B, 1, length, S + written + length): prefix `seen` (B, S), what is written, own past and self."""
    past = seen.new_ones(seen.shape[0], written)
    own = torch.ones(length, length, dtype=torch.bool, device=seen.device).tril()
    left = torch.cat([seen, past], dim=1)[:, None, :].expand(-1, length, -1)
    return torch.cat([left, own.expand(seen.shape[0], -1, -1)], dim=2)[:, None]


def warm_start(decoder: Decoder, encoder_state: dict[str, Tensor]) -> None:
    """Copy embeddings and layers of a BERT-shaped encoder into the decoder (names as in `guardrail.bert`).

    Raises:
        KeyError: the encoder is not BERT-shaped.
    """
    get = encoder_state.__getitem__
    with torch.no_grad():
        decoder.word.weight.copy_(get("embeddings.word_embeddings.weight"))
        decoder.position.weight.copy_(get("embeddings.position_embeddings.weight"))
        types = get("embeddings.token_type_embeddings.weight")
        for segment in range(SEGMENTS):
            noise = 0.02 * torch.randn(types.shape[1]) if segment != DRAFT else torch.zeros(types.shape[1])
            decoder.segment.weight[segment].copy_(types[0] + noise)
        decoder.norm.weight.copy_(get("embeddings.LayerNorm.weight"))
        decoder.norm.bias.copy_(get("embeddings.LayerNorm.bias"))
        for index, block in enumerate(decoder.blocks):
            _copy_layer(block, encoder_state, f"encoder.layer.{index}.")
        # Identity-like start of the copy attention: the last states of equal words are already alike.
        decoder.copy_query.weight.copy_(torch.eye(decoder.config.width) * 2.0)
        decoder.copy_key.weight.copy_(torch.eye(decoder.config.width) * 2.0)


def _copy_layer(block: nn.Module, state: dict[str, Tensor], prefix: str) -> None:
    for kind in ("weight", "bias"):
        parts = [state[f"{prefix}attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
        getattr(block.qkv, kind).copy_(torch.cat(parts))
        getattr(block.out, kind).copy_(state[f"{prefix}attention.output.dense.{kind}"])
        getattr(block.norm_1, kind).copy_(state[f"{prefix}attention.output.LayerNorm.{kind}"])
        getattr(block.up, kind).copy_(state[f"{prefix}intermediate.dense.{kind}"])
        getattr(block.down, kind).copy_(state[f"{prefix}output.dense.{kind}"])
        getattr(block.norm_2, kind).copy_(state[f"{prefix}output.LayerNorm.{kind}"])
