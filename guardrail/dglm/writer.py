"""What writes: the protocol that the pipeline knows, and the shipped decoder behind it.

The other writer is any causal language model, `guardrail.dglm.causal_rewriting`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from guardrail.dglm.batch import PrefixTokens, tokenise_prefix
from guardrail.dglm.codec import Codec
from guardrail.dglm.decoder import Decoder
from guardrail.dglm.fluency import MAX_SCORED, Scored, fluencies
from guardrail.dglm.generate import Decoding, Written, generate
from guardrail.dglm.latents import Array

SIGNAL = 0.95
"""alpha squared that the prompt generator is told at inference (Lovelace et al. 2024, code)."""

MAX_DRAFT = 96
"""Word pieces of the longest stretch that a decoder is trained to rewrite."""

MAX_CONTINUATION = 40
"""Word pieces of a sentence that is written without a draft."""


@dataclass(frozen=True, slots=True)
class Line:
    """One text to write.

    Attributes:
        latent: normalised wanted embedding (d,). draft: what is in view, hidden words as marks; may be empty.
        before: what stands before it. temperature: of sampling, 0 is greedy. seed: of what is drawn.
        forbidden: tells whether a text, perhaps unfinished, holds what must not be written; None: nothing.
        cancelled: asked before every token.
    """

    latent: Array
    draft: str
    before: str
    temperature: float
    seed: int
    forbidden: Callable[[str], bool] | None
    cancelled: Callable[[], bool]


class Writer(Protocol):
    """Write texts from latents with drafts in view, and say how fluent texts are. Thread-safe."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def parameters(self) -> int:
        """How many weights there are."""

    @property
    def max_draft(self) -> int:
        """Word pieces of the longest stretch that it rewrites."""

    def length(self, text: str, limit: int) -> int:
        """Return how many word pieces a text has, counted up to `limit`."""

    def write(self, lines: Sequence[Line]) -> list[Written]:
        """Return what was written for each line, as one batch; what a line gets does not depend on the others."""

    def fluency(self, rows: Sequence[tuple[str, str, Array]]) -> list[float]:
        """Return the log-probability, in nats, of the new words of each (text, draft, latent), 0 without any.

        Without a draft it is their mean. The latent is the normalised embedding of what should have been said.
        """

    def on_cpu(self) -> Writer:
        """Return the same writer on the CPU, for what does not fit a GPU's memory."""


class DraftWriter:
    """The shipped decoder: it sees the draft beside the soft prompt, and copies from it.

    Args:
        decoder: frozen. codec: of its vocabulary.
    """

    def __init__(self, decoder: Decoder, codec: Codec) -> None:
        self.decoder, self.codec = decoder, codec
        self._cpu: DraftWriter | None = None
        self._copying = Lock()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.word.weight.device

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(parameter.numel() for parameter in self.decoder.parameters())

    @property
    def max_draft(self) -> int:
        """Word pieces of the longest stretch that it rewrites."""
        return MAX_DRAFT

    def length(self, text: str, limit: int) -> int:
        """Return how many word pieces a text has, counted up to `limit`."""
        return len(self.codec.encode(text, limit))

    def prefix(self, draft: str, before: str) -> PrefixTokens:
        """Return what the decoder has in view: a draft, cut at `MAX_DRAFT` word pieces, and what stands before it."""
        return tokenise_prefix(self.codec, draft, before, MAX_DRAFT)

    def write(self, lines: Sequence[Line]) -> list[Written]:
        """Return what was written for each line, as one batch."""
        prefixes = [self.prefix(line.draft, line.before) for line in lines]
        limit = max(len(prefix.draft) + 12 if prefix.draft else MAX_CONTINUATION for prefix in prefixes)
        decoding = Decoding(
            [line.temperature for line in lines],
            max_tokens=limit,
            seeds=[line.seed for line in lines],
            forbidden=[line.forbidden for line in lines],
        )
        latent = torch.from_numpy(np.stack([line.latent for line in lines]).astype(np.float32))
        return self.generate(latent, prefixes, decoding, cancelled=lambda row: lines[row].cancelled())

    def generate(
        self,
        latent: Tensor,
        prefixes: Sequence[PrefixTokens],
        decoding: Decoding,
        generator: torch.Generator | None = None,
        cancelled: Callable[[int], bool] = lambda _: False,
    ) -> list[Written]:
        """Return what `guardrail.dglm.generate.generate` writes from normalised latents (B, d), in the device's precision."""
        signal = torch.full((len(prefixes),), SIGNAL)
        with self._precision():
            return generate(self.decoder, self.codec, latent, signal, prefixes, decoding, generator, cancelled)

    def fluency(self, rows: Sequence[tuple[str, str, Array]]) -> list[float]:
        """Return the log-probability of the new words of each (text, draft, latent)."""
        drafts = {draft: self.codec.encode(draft, MAX_DRAFT) for _, draft, _ in rows}
        scored = [
            Scored(self.codec.encode(text, MAX_SCORED), drafts[draft], torch.from_numpy(latent))
            for text, draft, latent in rows
        ]
        with self._precision():
            return fluencies(self.decoder, scored, SIGNAL)

    def on_cpu(self) -> DraftWriter:
        """Return the same writer on the CPU; the copy is made once."""
        with self._copying:
            if self._cpu is None:
                self._cpu = DraftWriter(deepcopy(self.decoder).to("cpu"), self.codec)
            return self._cpu

    def _precision(self) -> AbstractContextManager[object]:
        """bfloat16 on a GPU; a CPU without matrix instructions for it is slower with it than in float32."""
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)
