"""Decoding: write sentences from latents and prefixes, batched, with a key-value cache.

Greedy or nucleus sampling (Holtzman et al. 2020); no n-gram is written twice unless the draft has it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guardrail.dglm.batch import END, START, PrefixTokens, collate_prefix
from guardrail.dglm.codec import Codec
from guardrail.dglm.decoder import Cache, Decoder, causal_mask


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to write.

    Attributes:
        temperature: per row, shape (B,); 0 is greedy.
        top_p: nucleus mass for rows that sample.
        max_tokens: longest sentence, in word pieces.
        no_repeat: n of the n-grams that may not recur.
    """

    temperature: Sequence[float]
    top_p: float = 0.9
    max_tokens: int = 96
    no_repeat: int = 3


@dataclass(frozen=True, slots=True)
class Written:
    """A written sentence and its mean log-probability per token, in nats. `ended` is False where it was cut."""

    text: str
    log_probability: float
    ended: bool


@dataclass(slots=True)
class _Row:
    """What one row of the batch has written so far."""

    ids: list[int] = field(default_factory=list)
    forms: list[int] = field(default_factory=list)
    surfaces: list[str | None] = field(default_factory=list)
    log_probability: float = 0.0
    ended: bool = False


@torch.inference_mode()
def generate(
    decoder: Decoder,
    codec: Codec,
    latent: Tensor,
    signal: Tensor,
    prefixes: Sequence[PrefixTokens],
    decoding: Decoding,
    generator: torch.Generator | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Written]:
    """Write one sentence per row.

    Args:
        latent: normalised wanted embeddings, shape (B, latent_dim). signal: alpha squared of each, shape (B,).
        prefixes: B prefixes. decoding: B temperatures and the shared settings.
        generator: CPU generator for the rows that sample; the same seed gives the same text.
        cancelled: asked before every token; True stops the work, and rows are returned as they are.
    """
    device = decoder.word.weight.device
    prefix = collate_prefix(prefixes, decoder.prompt(latent.to(device), signal.to(device))).to(device)
    states, cache, seen = decoder.encode_prefix(prefix)
    draft = states[:, prefix.soft.shape[1] :]
    rows = [_Row() for _ in prefixes]
    ids = torch.full((len(rows), 1), START, device=device)
    forms = torch.zeros_like(ids)
    limit = min(decoding.max_tokens, decoder.config.positions - 1)
    for position in range(limit):
        states, cache = _advance(decoder, ids, forms, position, cache, seen)
        log_write, log_attention, log_gate, summary = decoder.distribution(states, draft, prefix.copyable)
        copied = (log_attention + log_gate[..., 1:]).exp()[:, 0]  # (B, P)
        probabilities = torch.zeros(len(rows), decoder.config.vocabulary, device=device)
        probabilities[:, decoder.output_ids] = (log_write + log_gate[..., :1]).exp()[:, 0]
        probabilities.scatter_add_(1, prefix.ids, copied * prefix.copyable)
        if position == 0:
            probabilities[:, END] = 0.0
        _forbid_repeats(probabilities, rows, prefixes, decoding.no_repeat)
        chosen = _choose(probabilities, decoding, generator)  # (B,)
        ids = chosen[:, None]
        forms = decoder.form_logits(states, summary, ids).argmax(dim=-1)
        _record(rows, chosen, forms[:, 0], probabilities, copied, prefixes, prefix.ids, prefix.copyable, codec)
        if all(row.ended for row in rows) or cancelled():
            break
    return [_finish(row, codec) for row in rows]


def _advance(
    decoder: Decoder, ids: Tensor, forms: Tensor, position: int, cache: Cache, seen: Tensor
) -> tuple[Tensor, Cache]:
    positions = torch.full_like(ids, position)
    return decoder.step(ids, forms, positions, cache, causal_mask(seen, 1, position))


def _forbid_repeats(probabilities: Tensor, rows: list[_Row], prefixes: Sequence[PrefixTokens], n: int) -> None:
    """Zero what would complete an n-gram that the row has already written, unless the draft has it."""
    for index, (row, prefix) in enumerate(zip(rows, prefixes, strict=True)):
        if len(row.ids) < n:
            continue
        tail = tuple(row.ids[-(n - 1) :])
        own = {row.ids[i + n - 1] for i in range(len(row.ids) - n + 1) if tuple(row.ids[i : i + n - 1]) == tail}
        if own:
            ids = prefix.draft.ids
            allowed = {ids[i + n - 1] for i in range(len(ids) - n + 1) if tuple(ids[i : i + n - 1]) == tail}
            for piece in own - allowed:
                probabilities[index, piece] = 0.0


def _choose(probabilities: Tensor, decoding: Decoding, generator: torch.Generator | None) -> Tensor:
    """Return one id per row (B,): the likeliest where the temperature is 0, a nucleus sample elsewhere."""
    chosen = probabilities.argmax(dim=-1)
    sampled = [row for row, temperature in enumerate(decoding.temperature) if temperature > 0]
    if sampled:
        temperature = torch.tensor([decoding.temperature[row] for row in sampled])[:, None]
        top, order = probabilities[sampled].float().cpu().topk(min(64, probabilities.shape[1]), dim=-1)
        top = top / top.sum(dim=-1, keepdim=True)
        outside = top.cumsum(dim=-1) - top > decoding.top_p
        weights = top.clamp_min(1e-12).log().div(temperature).exp().masked_fill(outside, 0.0)
        picks = torch.multinomial(weights, 1, generator=generator)
        chosen[sampled] = order.gather(1, picks).squeeze(1).to(chosen.device)
    return chosen


def _record(
    rows: list[_Row],
    chosen: Tensor,
    forms: Tensor,
    probabilities: Tensor,
    copied: Tensor,
    prefixes: Sequence[PrefixTokens],
    prefix_ids: Tensor,
    copyable: Tensor,
    codec: Codec,
) -> None:
    likelihood = probabilities.gather(1, chosen[:, None]).squeeze(1).clamp_min(1e-12).log().tolist()
    source = (copied * copyable * (prefix_ids == chosen[:, None])).max(dim=1)
    for index, row in enumerate(rows):
        if row.ended:
            continue
        row.log_probability += likelihood[index]
        piece = int(chosen[index])
        if piece == END:
            row.ended = True
            continue
        row.ids.append(piece)
        row.forms.append(int(forms[index]))
        position = int(source.indices[index]) if float(source.values[index]) > 0 else None
        row.surfaces.append(_surface(piece, position, prefixes[index], codec))


def _surface(piece: int, position: int | None, prefix: PrefixTokens, codec: Codec) -> str | None:
    """The draft's own spelling where the vocabulary cannot spell it (accents, emoji, unknown scripts), else None."""
    if position is None:
        return None
    start = len(prefix.context) + 1 if prefix.context else 0
    surface = prefix.draft.surfaces[position - start]
    plain = codec.pieces[piece].removeprefix("##")
    return surface if surface.lower() != plain else None


def _finish(row: _Row, codec: Codec) -> Written:
    text = codec.decode(row.ids, row.forms, row.surfaces)
    return Written(text, row.log_probability / max(1, len(row.ids) + row.ended), row.ended)
