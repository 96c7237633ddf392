"""Training objective of the decoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from guardrail.dglm.batch import TargetBatch
from guardrail.dglm.decoder import Decoder, Prefix, causal_mask

LEAST = -30.0
"""Nats below which no token is scored."""


def output_index(decoder: Decoder) -> Tensor:
    """Return the place of every id in the softmax, -1 where it has none; (vocabulary,), int64."""
    index = torch.full((decoder.config.vocabulary,), -1, device=decoder.output_ids.device)
    index[decoder.output_ids] = torch.arange(len(decoder.output_ids), device=index.device)
    return index


def mixture(
    parts: tuple[Tensor, Tensor, Tensor], next_ids: Tensor, draft_ids: Tensor, copyable: Tensor, output_index: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of given tokens under the mixture of writing and copying (See et al. 2017, eq. 9).

    Args:
        parts: the first three of `Decoder.distribution`: (B, T, V), (B, T, P), (B, T, 2). next_ids: (B, T).
        draft_ids, copyable: (B, P). output_index: see `output_index`.

    Returns:
        Log-probabilities (B, T) in nats, `LEAST` at least, and whether a token can be written or copied at all, (B, T).
    """
    log_write, log_attention, log_gate = parts
    index = output_index[next_ids]  # (B, T)
    writable = index >= 0
    by_write = log_write.gather(-1, index.clamp_min(0)[..., None]).squeeze(-1) + log_gate[..., 0]
    by_write = by_write.masked_fill(~writable, -1e9)
    matches = (next_ids[:, :, None] == draft_ids[:, None, :]) & copyable[:, None, :]  # (B, T, P)
    by_copy = log_attention.masked_fill(~matches, -1e9).logsumexp(dim=-1) + log_gate[..., 1]
    return torch.logaddexp(by_write, by_copy).clamp_min(LEAST), writable | matches.any(dim=-1)


def token_log_probabilities(
    decoder: Decoder, prefix: Prefix, target: TargetBatch, output_index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the decoder makes of given targets.

    Args:
        output_index: (vocabulary,) int64, the place of an id in the softmax, -1 where it has none.

    Returns:
        Log-probability (B, T) of every next token under the mixture of writing and copying (See et al. 2017, eq. 9);
        1.0 where that counts, (B, T), not for a token that can be neither written nor copied; and the logits of its
        form, (B, T, FORMS).
    """
    states, cache, seen = decoder.encode_prefix(prefix)
    draft = states[:, prefix.soft.shape[1] :]
    length = target.ids.shape[1]
    positions = torch.arange(length, device=target.ids.device).expand_as(target.ids)
    written, _ = decoder.step(target.ids, target.forms, positions, cache, causal_mask(seen, length))
    log_write, log_attention, log_gate, summary = decoder.distribution(written, draft, prefix.copyable)

    parts = (log_write, log_attention, log_gate)
    log_probability, possible = mixture(parts, target.next_ids, prefix.ids, prefix.copyable, output_index)
    counts = target.weight * possible
    return log_probability, counts, decoder.form_logits(written, summary, target.next_ids)


def decoder_loss(
    decoder: Decoder, prefix: Prefix, target: TargetBatch, output_index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (summed token loss, summed form loss, token count); the mean per token is what is minimised."""
    log_probability, counts, forms = token_log_probabilities(decoder, prefix, target, output_index)
    per_form = F.cross_entropy(forms.flatten(0, 1), target.next_forms.flatten(), reduction="none").view_as(counts)
    return -(log_probability * counts).sum(), (per_form * target.weight).sum(), counts.sum()
