"""Embeddings within one call: each text is encoded once, however many parts of the pipeline ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from guardrail.dglm.latents import Array


class Embeds(Protocol):
    """What turns texts into unit vectors; `guardrail.encoder.Encoder` is one."""

    def encode(self, texts: Sequence[str]) -> Array:
        """Return unit vectors (N, d)."""


class Once:
    """An encoder that remembers. For the time of one call: nothing is ever forgotten.

    Args:
        encoder: asked for what is not known yet.
    """

    def __init__(self, encoder: Embeds) -> None:
        self._encoder = encoder
        self._known: dict[str, Array] = {}

    def encode(self, texts: Sequence[str]) -> Array:
        """Return unit vectors (N, d), N >= 1."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])
