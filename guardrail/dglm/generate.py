"""Decoding: write sentences from latents and prefixes, batched, with a key-value cache.

How the next token is chosen stands in `guardrail.dglm.choose`. A row that has ended leaves the batch, so that the last
ones do not pay for the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.dglm.batch import END, START, PrefixTokens, collate_prefix
from guardrail.dglm.choose import Decoding, Draws, Row, choose, reshape
from guardrail.dglm.codec import Codec
from guardrail.dglm.decoder import Cache, Decoder, causal_mask

__all__ = ["Decoding", "Written", "generate"]

SHRINK = 0.75
"""The batch is made smaller when at most this share of it is still being written."""

RETRIES = 8
"""Choices per token before a row gives up to avoid what is forbidden, and ends."""


@dataclass(frozen=True, slots=True)
class Written:
    """A written sentence, its word pieces, and its mean log-probability per token, in nats.

    `ended` is False where it was cut.
    """

    text: str
    log_probability: float
    ended: bool
    ids: tuple[int, ...] = ()


@dataclass(slots=True)
class _Batch:
    """The tensors of the rows that are still being written, all with A rows."""

    prefix_ids: Tensor  # (A, P)
    copyable: Tensor  # (A, P)
    draft: Tensor  # (A, P, width)
    keys: Tensor  # (A, P, width) of the copy attention
    cache: Cache
    seen: Tensor  # (A, S + P)
    ids: Tensor  # (A, 1) written last
    forms: Tensor  # (A, 1)

    def select(self, keep: Sequence[int]) -> _Batch:
        index = torch.tensor(keep, device=self.ids.device)
        cache = [(keys[index], values[index]) for keys, values in self.cache]
        parts = (self.prefix_ids, self.copyable, self.draft, self.keys, self.seen, self.ids, self.forms)
        prefix_ids, copyable, draft, keys, seen, ids, forms = (part[index] for part in parts)
        return _Batch(prefix_ids, copyable, draft, keys, cache, seen, ids, forms)


@dataclass(slots=True)
class _Step:
    """What one step of the decoder says: weights (A, V), their copied share by position (A, P), states, summary."""

    probabilities: Tensor
    copied: Tensor
    states: Tensor
    summary: Tensor


@torch.inference_mode()
def generate(
    decoder: Decoder,
    codec: Codec,
    latent: Tensor,
    signal: Tensor,
    prefixes: Sequence[PrefixTokens],
    decoding: Decoding,
    generator: torch.Generator | None = None,
    cancelled: Callable[[int], bool] = lambda _: False,
) -> list[Written]:
    """Write one sentence per row.

    Args:
        latent: normalised wanted embeddings, shape (B, latent_dim). signal: alpha squared of each, shape (B,).
        prefixes: B prefixes. decoding: B temperatures and the shared settings.
        generator: CPU generator for the rows that sample, unless they have `seeds`; the same seed gives the same text.
        cancelled: asked for every row before every token; True stops that row, which is returned as it is.
    """
    device = decoder.word.weight.device
    prefix = collate_prefix(prefixes, decoder.prompt(latent.to(device), signal.to(device))).to(device)
    states, cache, seen = decoder.encode_prefix(prefix)
    start = torch.full((len(prefixes), 1), START, device=device)
    draft = states[:, prefix.soft.shape[1] :]
    forms = torch.zeros_like(start)
    batch = _Batch(prefix.ids, prefix.copyable, draft, decoder.copy_key(draft), cache, seen, start, forms)
    rows = [Row(index, own) for index, own in enumerate(prefixes)]
    active, draws = rows, Draws(decoding, generator)
    for position in range(min(decoding.max_tokens, decoder.config.positions - 1)):
        step = _step(decoder, batch, position)
        if position == 0:
            step.probabilities[:, END] = 0.0
        reshape(step.probabilities, active, decoding)
        if decoding.adjust is not None:
            step.probabilities = decoding.adjust(step.probabilities, step.states[:, 0], active)
        _write(decoder, codec, batch, step, active, decoding, draws)
        for row in active:
            row.stopped = row.stopped or row.ended or cancelled(row.index)
        left = [number for number, row in enumerate(active) if not row.stopped]
        if not left:
            break
        if len(left) <= SHRINK * len(active):
            batch, active = batch.select(left), [active[number] for number in left]
    return [
        Written(row.text, row.log_probability / max(1, len(row.ids) + row.ended), row.ended, tuple(row.ids))
        for row in rows
    ]


def _step(decoder: Decoder, batch: _Batch, position: int) -> _Step:
    """Run the last written token through the decoder; the cache grows by one."""
    positions = torch.full_like(batch.ids, position)
    mask = causal_mask(batch.seen, 1, position)
    states, batch.cache = decoder.step(batch.ids, batch.forms, positions, batch.cache, mask)
    log_write, log_attention, log_gate, summary = decoder.distribution(states, batch.draft, batch.copyable, batch.keys)
    copied = (log_attention + log_gate[..., 1:]).exp()[:, 0] * batch.copyable  # (A, P)
    probabilities = torch.zeros(len(copied), decoder.config.vocabulary, device=copied.device)
    probabilities[:, decoder.output_ids] = (log_write + log_gate[..., :1]).exp()[:, 0]
    probabilities.scatter_add_(1, batch.prefix_ids, copied)
    return _Step(probabilities, copied, states, summary)


def _write(
    decoder: Decoder, codec: Codec, batch: _Batch, step: _Step, rows: Sequence[Row], decoding: Decoding, draws: Draws
) -> None:
    """Choose a token for every row and write it, none after which the row's text would hold what is forbidden."""
    chosen = choose(step.probabilities, rows, decoding, draws)
    forms = decoder.form_logits(step.states, step.summary, chosen[:, None]).argmax(dim=-1)
    surfaces = _surfaces(codec, batch, step, rows, chosen, forms)
    for attempt in range(RETRIES + 1):
        wrong = [n for n, row in enumerate(rows) if _forbidden(row, surfaces[n], decoding)]
        if not wrong:
            break
        step.probabilities[wrong, chosen[wrong]] = 0.0
        if attempt == RETRIES:  # all of these would do: the text so far holds nothing forbidden, so it ends here
            chosen[wrong] = END
        else:
            again = choose(step.probabilities[wrong], [rows[n] for n in wrong], decoding, draws)
            chosen[wrong] = again
        forms = decoder.form_logits(step.states, step.summary, chosen[:, None]).argmax(dim=-1)
        surfaces = _surfaces(codec, batch, step, rows, chosen, forms)
    likelihood = step.probabilities.gather(1, chosen[:, None]).squeeze(1).clamp_min(1e-12).log().tolist()
    for row, piece, surface, value in zip(rows, chosen.tolist(), surfaces, likelihood, strict=True):
        if row.stopped:
            continue
        row.log_probability += value
        row.ended = piece == END
        if not row.ended:
            row.ids.append(piece)
            row.text += surface
    batch.ids, batch.forms = chosen[:, None], forms


def _forbidden(row: Row, surface: str, decoding: Decoding) -> bool:
    check = decoding.forbidden[row.index] if decoding.forbidden else None
    return check is not None and surface != "" and not row.stopped and check(row.text + surface)


def _surfaces(
    codec: Codec, batch: _Batch, step: _Step, rows: Sequence[Row], chosen: Tensor, forms: Tensor
) -> list[str]:
    """What each row would add to its text; the empty string for the end.

    A copied piece takes the draft's own spelling where the vocabulary cannot spell it (accents, emoji, scripts).
    """
    source = (step.copied * (batch.prefix_ids == chosen[:, None])).max(dim=1)
    values, indices = source.values.tolist(), source.indices.tolist()
    found = []
    for number, (row, piece, form) in enumerate(zip(rows, chosen.tolist(), forms[:, 0].tolist(), strict=True)):
        if piece == END:
            found.append("")
            continue
        plain = codec.pieces[piece].removeprefix("##")
        copied = None
        if values[number] > 0:
            start = len(row.prefix.context) + 1 if row.prefix.context else 0
            copied = row.prefix.draft.surfaces[indices[number] - start]
            copied = copied if copied.lower() != plain else None
        surface = codec.decode([piece], [form], [copied])
        found.append(" " + surface if form >= 3 and row.text else surface)
    return found
