"""Training objective of the decoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from guardrail.dglm.batch import TargetBatch
from guardrail.dglm.decoder import Decoder, Prefix, causal_mask


def decoder_loss(
    decoder: Decoder, prefix: Prefix, target: TargetBatch, output_index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (summed token loss, summed form loss, token count); the mean per token is what is minimised.

    The token loss is -log of the mixture of writing and copying (See et al. 2017, equation 9). A token that can be
    neither written nor copied does not count.

    Args:
        output_index: (vocabulary,) int64, the place of an id in the softmax, -1 where it has none.
    """
    states, cache, seen = decoder.encode_prefix(prefix)
    draft = states[:, prefix.soft.shape[1] :]
    length = target.ids.shape[1]
    positions = torch.arange(length, device=target.ids.device).expand_as(target.ids)
    written, _ = decoder.step(target.ids, target.forms, positions, cache, causal_mask(seen, length))
    log_write, log_attention, log_gate, summary = decoder.distribution(written, draft, prefix.copyable)

    index = output_index[target.next_ids]  # (B, T)
    writable = index >= 0
    by_write = log_write.gather(-1, index.clamp_min(0)[..., None]).squeeze(-1) + log_gate[..., 0]
    by_write = by_write.masked_fill(~writable, -1e9)
    matches = (target.next_ids[:, :, None] == prefix.ids[:, None, :]) & prefix.copyable[:, None, :]  # (B, T, P)
    by_copy = log_attention.masked_fill(~matches, -1e9).logsumexp(dim=-1) + log_gate[..., 1]
    weight = target.weight * (writable | matches.any(dim=-1))
    token_loss = -(torch.logaddexp(by_write, by_copy).clamp_min(-30.0) * weight).sum()

    forms = decoder.form_logits(written, summary, target.next_ids)
    per_form = F.cross_entropy(forms.flatten(0, 1), target.next_forms.flatten(), reduction="none").view_as(weight)
    return token_loss, (per_form * target.weight).sum(), weight.sum()
