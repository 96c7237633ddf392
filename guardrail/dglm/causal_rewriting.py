"""A causal language model as the pipeline's writer: what it has in view, and how fluent it finds a text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from itertools import pairwise
from threading import Lock

import numpy as np
import torch

from guardrail.dglm.causal import CausalWriter
from guardrail.dglm.choose import Decoding
from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.fluency import MAX_SCORED, told
from guardrail.dglm.generate import Written
from guardrail.dglm.latents import Array
from guardrail.dglm.loss import LEAST
from guardrail.dglm.writer import MAX_CONTINUATION, MAX_DRAFT, SIGNAL, Line

CONTEXT_CHARS = 160
"""Of what stands before, at its end, that is in view."""

BLANK = "___"
"""Stands for a hidden word."""

LONGER = 12
"""Tokens that a rewrite may have more than its draft."""

FRAME = 60
"""Tokens that the context and the words around the draft take at most."""


def in_view(draft: str, before: str) -> str:
    """Return the text that stands before the soft prompt: what came before, and the draft with its blanks."""
    context = before[-CONTEXT_CHARS:].strip()
    shown = f"Draft: {draft.replace(HIDDEN, BLANK)}\nRewrite:" if draft else ""
    return "\n".join(part for part in (context, shown) if part)


class CausalRewriting:
    """A `guardrail.dglm.writer.Writer` around a causal language model. Thread-safe.

    Args:
        writer: in evaluation mode, its weights frozen.
    """

    def __init__(self, writer: CausalWriter) -> None:
        self.writer = writer
        self._cpu: CausalRewriting | None = None
        self._copying = Lock()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.writer.device

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(parameter.numel() for parameter in self.writer.parameters())

    @property
    def max_draft(self) -> int:
        """Tokens of the longest stretch that fits into the model's window together with its rewrite."""
        room = self.writer.positions - self.writer.config.soft_tokens - FRAME - LONGER
        return max(0, min(MAX_DRAFT, room // 2))

    def length(self, text: str, limit: int) -> int:
        """Return how many tokens a text has, counted up to `limit`."""
        return min(limit, len(self.writer.ids(text)))

    def write(self, lines: Sequence[Line]) -> list[Written]:
        """Return what was written for each line, as one batch."""
        lengths = [len(self.writer.ids(line.draft)) for line in lines]
        decoding = Decoding(
            [line.temperature for line in lines],
            max_tokens=max(length + LONGER if length else MAX_CONTINUATION for length in lengths),
            seeds=[line.seed for line in lines],
            forbidden=[line.forbidden for line in lines],
        )
        latent = torch.from_numpy(np.stack([line.latent for line in lines]).astype(np.float32))
        with self._precision():
            return self.writer.write(
                latent,
                torch.full((len(lines),), SIGNAL),
                [in_view(line.draft, line.before) for line in lines],
                decoding,
                cancelled=lambda row: lines[row].cancelled(),
                drafts=[line.draft for line in lines],
            )

    def fluency(self, rows: Sequence[tuple[str, str, Array]]) -> list[float]:
        """Return the log-probability, in nats, of the new words of each (text, draft, latent), see `Writer.fluency`."""
        ids = [self.writer.ids(text)[:MAX_SCORED] for text, _, _ in rows]
        latent = torch.from_numpy(np.stack([latent for _, _, latent in rows]).astype(np.float32))
        with self._precision():
            shown = [in_view(draft, "") for _, draft, _ in rows]
            values = self.writer.log_probabilities(latent, torch.full((len(rows),), SIGNAL), shown, ids)
        found = []
        for own, said, (_, draft, _) in zip(ids, values, rows, strict=True):
            known = set(pairwise((None, *self.writer.ids(draft), None))) if draft else set()
            new = [
                max(v, LEAST) for v, pair in zip(said, pairwise((None, *own, None)), strict=True) if pair not in known
            ]
            found.append(told(sum(new), len(new), bool(draft)))
        return found

    def on_cpu(self) -> CausalRewriting:
        """Return the same writer on the CPU; the copy is made once."""
        with self._copying:
            if self._cpu is None:
                self._cpu = CausalRewriting(deepcopy(self.writer).to("cpu"))
            return self._cpu

    def _precision(self) -> AbstractContextManager[object]:
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)
