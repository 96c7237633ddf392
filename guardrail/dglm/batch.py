"""Collate pairs into the tensors that the decoder is trained on and prompted with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.dglm.aims import Aim
from guardrail.dglm.codec import HIDDEN, Codec, Tokens
from guardrail.dglm.corpus import Pair
from guardrail.dglm.decoder import CONTEXT, DRAFT, Prefix

START, END, PAD = 101, 102, 0  # [CLS], [SEP], [PAD] of the BERT vocabulary
EMPTY = Tokens((), (), ())


@dataclass(frozen=True, slots=True)
class PrefixTokens:
    """Context and draft of one request, tokenised."""

    draft: Tokens
    context: Tokens = EMPTY


def tokenise_prefix(
    codec: Codec, draft: str, before: str, draft_limit: int = 96, context_limit: int = 32
) -> PrefixTokens:
    """Tokenise a draft and the *end* of what stands before it."""
    context = codec.encode(before)
    if len(context) > context_limit:
        last = slice(-context_limit, None)
        context = Tokens(context.ids[last], context.forms[last], context.surfaces[last])
    return PrefixTokens(codec.encode(draft, draft_limit), context)


def collate_prefix(prefixes: Sequence[PrefixTokens], soft: Tensor) -> Prefix:
    """Return a padded `Prefix` of B requests: context, [SEP], draft, [SEP] (separators only where there is text)."""
    rows = [_prefix_row(prefix) for prefix in prefixes]
    length = max(1, *map(len, rows))
    table = torch.zeros(len(rows), length, 5, dtype=torch.long)
    for index, row in enumerate(rows):
        if row:
            table[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    ids, forms, segments, positions, kind = table.unbind(dim=-1)
    return Prefix(ids, forms, segments, positions, kind > 0, kind == 2, soft)


def _prefix_row(prefix: PrefixTokens) -> list[tuple[int, int, int, int, int]]:
    """Rows of (id, form, segment, position, kind); kind 0 pad, 1 seen, 2 copyable."""
    row: list[tuple[int, int, int, int, int]] = []
    if prefix.context:
        row += [
            (i, f, CONTEXT, p + 1, 1)
            for p, (i, f) in enumerate(zip(prefix.context.ids, prefix.context.forms, strict=True))
        ]
        row.append((END, 0, CONTEXT, len(prefix.context) + 1, 1))
    if prefix.draft:
        draft = zip(prefix.draft.ids, prefix.draft.forms, prefix.draft.surfaces, strict=True)
        row += [(i, f, DRAFT, p + 1, 1 if s == HIDDEN else 2) for p, (i, f, s) in enumerate(draft)]
        row.append((END, 0, DRAFT, len(prefix.draft) + 1, 1))
    return row


@dataclass(slots=True)
class TargetBatch:
    """Written tokens: `ids`/`forms` are fed in (starting with [CLS]), `next_ids`/`next_forms` are to be predicted.

    All (B, T) int64; `weight` (B, T) is 1.0 where a token counts in the loss.
    """

    ids: Tensor
    forms: Tensor
    next_ids: Tensor
    next_forms: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> TargetBatch:
        """Return the batch on a device."""
        moved = (tensor.to(device) for tensor in (self.ids, self.forms, self.next_ids, self.next_forms, self.weight))
        return TargetBatch(*moved)


def collate_target(targets: Sequence[Tokens]) -> TargetBatch:
    """Shift and pad B targets."""
    length = max(len(target) for target in targets) + 1
    ids = torch.full((len(targets), length), PAD, dtype=torch.long)
    forms, next_forms = torch.zeros_like(ids), torch.zeros_like(ids)
    next_ids = torch.full_like(ids, PAD)
    weight = torch.zeros(ids.shape)
    for row, target in enumerate(targets):
        count = len(target)
        ids[row, : count + 1] = torch.tensor([START, *target.ids])
        forms[row, : count + 1] = torch.tensor([0, *target.forms])
        next_ids[row, : count + 1] = torch.tensor([*target.ids, END])
        next_forms[row, : count + 1] = torch.tensor([*target.forms, 0])
        weight[row, : count + 1] = 1.0
    return TargetBatch(ids, forms, next_ids, next_forms, weight)


@dataclass(slots=True)
class Example:
    """One training example, tokenised, with the embedding that the decoder is told."""

    prefix: PrefixTokens
    target: Tokens
    aim: Aim

    def __len__(self) -> int:
        return len(self.prefix.draft) + len(self.prefix.context) + 2 * len(self.target)


def make_example(codec: Codec, pair: Pair, aim: Aim | None = None, target_limit: int = 64) -> Example:
    """Tokenise a training pair; without an aim the decoder is told the target's own embedding."""
    return Example(
        tokenise_prefix(codec, pair.source, pair.before),
        codec.encode(pair.target, target_limit),
        Aim(pair.target) if aim is None else aim,
    )
