"""Which words made a score: attention suppression (AtMan, Deiseroth et al., NeurIPS 2023, section 3) on the encoder.

One word at a time, the attention that its tokens receive is multiplied by `FACTOR`, and so is that of tokens whose input
embeddings resemble them (cosine k >= `SIMILAR`), by (1 - FACTOR)(1 - k) + FACTOR (equation 6). A word's relevance is what
the score loses.

Two things differ from the paper, which explains a causal decoder. Weights are scaled after the softmax, and normalised
again, because scores before it may be negative; the mean over tokens that makes the sentence vector is scaled alike. And
only the last layer is suppressed: that tells the words apart as well as all layers do (docs/explain.md), and the layers
below are computed once for all words, so that a text of forty tokens costs about as much as five of its embeddings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from guardrail.types import Span

if TYPE_CHECKING:
    from torch import Tensor

    from guardrail.bert import Bert, Layer
    from guardrail.encoder import Encoder, Vectors

__all__ = ["FACTOR", "SIMILAR", "suppressed", "words"]

FACTOR: Final = 0.1
SIMILAR: Final = 0.6
BATCH_TOKENS: Final = 4_096  # tokens of all copies in one pass

_UNIT = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # no spaces
    "|[^\\W_]+(?:['’][^\\W_]+)*|[^\\w\\s]+|_+"
)
_WORDLY = re.compile(r"[^\W_]|[^\x00-\u2fff]")  # a letter, a digit or an emoji


def words(text: str) -> list[Span]:
    """The words of a text, and its emoji; characters of scripts written without spaces count one by one."""
    return [match.span() for match in _UNIT.finditer(text) if _WORDLY.search(match[0])]


def suppressed(encoder: Encoder, text: str, spans: Sequence[Span]) -> Vectors:
    """Embed a text as it is, and once for each span with that span suppressed.

    Args:
        encoder: with a BERT inside, its last layer is suppressed; any other embeds the text without the span.
        text: read up to the encoder's window; a span beyond it changes nothing.
        spans: n ascending spans of `text` that do not overlap.

    Returns:
        (n + 1, d) unit vectors, that of the whole text first.
    """
    bert = encoder.transformer
    groups = _groups(encoder, text, spans) if bert is not None else None
    if bert is None or groups is None:
        return encoder.encode([text, *(_without(text, span) for span in spans)])
    ids, owned = groups
    return _forward(bert, ids, owned)


def _without(text: str, span: Span) -> str:
    return f"{text[: span[0]]}{text[span[1] :]}"


def _groups(encoder: Encoder, text: str, spans: Sequence[Span]) -> tuple[list[int], list[list[int]]] | None:
    """Token ids of a text, and which of them belong to each span; None where tokens do not keep to the spans.

    The tokens of a text are those of its parts in a row, because word pieces never reach over a space or a sign.
    """
    parts: list[tuple[str, bool]] = []
    at = 0
    for start, end in spans:
        parts += [(text[at:start], False), (text[start:end], True)]
        at = end
    parts.append((text[at:], False))
    (ids,), pieces = encoder.tokens([text]), encoder.tokens([part for part, _ in parts])
    inner = [piece[1:-1] for piece in pieces]  # without the special tokens
    if [token for piece in inner for token in piece] != ids[1:-1]:
        return None
    limit = encoder.max_tokens - 1
    owned: list[list[int]] = []
    place = 1
    for piece, (_, own) in zip(inner, parts, strict=True):
        if own:
            owned.append([token for token in range(place, place + len(piece)) if token < limit])
        place += len(piece)
    return (ids if len(ids) <= encoder.max_tokens else [*ids[:limit], ids[-1]]), owned


def _forward(bert: Bert, ids: Sequence[int], owned: Sequence[Sequence[int]]) -> Vectors:
    """(n + 1, d) unit vectors: T tokens through the lower layers once, and n + 1 copies through the last."""
    import torch

    with torch.inference_mode():
        tokens = torch.tensor([list(ids)], device=bert.device)
        embedded = torch.nn.functional.normalize(bert.embeddings.word_embeddings(tokens)[0], dim=1)  # (T, d)
        hidden = bert.embeddings(tokens)
        *lower, last = bert.layers
        for layer in lower:
            hidden = layer(hidden)  # (1, T, d)
        keep = _kept(embedded, owned)  # (n + 1, T)
        size = max(1, BATCH_TOKENS // len(ids))
        pooled = [_last(last, hidden, part) for part in torch.split(keep, size)]
        vectors: Vectors = torch.nn.functional.normalize(torch.cat(pooled), dim=1).cpu().numpy()
        return vectors


def _kept(embedded: Tensor, owned: Sequence[Sequence[int]]) -> Tensor:
    """(n + 1, T) factors: ones, then for each group `FACTOR` at its tokens and at others by how similar they are."""
    import torch

    keep = torch.ones((len(owned) + 1, len(embedded)), device=embedded.device)
    cosine = embedded @ embedded.T
    inner = slice(1, len(embedded) - 1)  # special tokens are never suppressed
    for row, tokens in enumerate(owned, 1):
        if not tokens:
            continue
        nearest = cosine[list(tokens)].amax(dim=0).clamp(0.0, 1.0)
        softened = torch.where(nearest >= SIMILAR, (1 - FACTOR) * (1 - nearest) + FACTOR, 1.0)
        keep[row, inner] = softened[inner]
        keep[row, list(tokens)] = FACTOR
    return keep


def _last(layer: Layer, hidden: Tensor, keep: Tensor) -> Tensor:
    """(1, T, d) states through one BERT layer for N copies with attention scaled by `keep` (N, T): (N, d) means."""
    import torch

    attention = layer.attention.self
    query, key, value = attention.heads(hidden)  # (1, heads, T, d / heads)
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = torch.softmax(scores + keep.log()[:, None, None, :], dim=-1)  # (N, heads, T, T)
    context = (weights @ value).transpose(1, 2).flatten(2)
    attended = layer.attention.output(context, hidden)
    states = layer.output(layer.intermediate(attended), attended)  # (N, T, d)
    pooled: Tensor = (states * keep[:, :, None]).sum(dim=1) / keep.sum(dim=1, keepdim=True)
    return pooled


def relevance(scores: np.ndarray) -> np.ndarray:
    """(n + 1,) scores, that of the whole text first, to what each span adds to it: (n,)."""
    return np.asarray(scores[0] - scores[1:])
