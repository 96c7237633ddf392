"""The DGLM as a rewriter."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from guardrail.dglm.pipeline import Pipeline, SpanRequest, load_pipeline
from guardrail.errors import RewriteFailure
from guardrail.rewrite.base import Proposal, RewriteRequest

if TYPE_CHECKING:
    from guardrail.settings import Settings


class DGLMRewriter:
    """Move the stretch's embedding to the allowed side of the violated rules and write it anew with the draft in view.

    Args:
        checkpoint: name of a shipped checkpoint, or a directory. encoder: name of the sentence encoder. device:
            auto, cpu or cuda.
    """

    name = "dglm"

    def __init__(self, checkpoint: str, encoder: str, device: str) -> None:
        self._names = (checkpoint, encoder, device)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The loaded checkpoint; loading takes seconds and happens on first use."""
        return load_pipeline(*self._names)

    @property
    def fingerprint(self) -> str:
        """Hash of the decoder's weights and the latent statistics."""
        return f"sha256:{self.pipeline.sha256}"

    def propose(self, requests: list[RewriteRequest]) -> list[list[Proposal]]:
        """Return up to `candidates` distinct proposals per request.

        Raises:
            RewriteFailure: cancelled.
        """
        found: list[list[Proposal]] = []
        for request in requests:
            written = self.pipeline.rewrite(
                SpanRequest(
                    text=request.text,
                    before=request.before,
                    matches=request.matches,
                    guides=request.guides,
                    candidates=request.candidates,
                    strength=request.strength,
                    mode=request.mode,
                    seed=request.seed,
                    cancelled=request.cancelled,
                )
            )
            if request.cancelled():
                raise RewriteFailure("the rewrite was cancelled or ran out of time")
            found.append([Proposal(row.text, row.fluency) for row in written])
        return found


def build(settings: Settings) -> DGLMRewriter:
    """Registry entry."""
    return DGLMRewriter(settings.rewriter.checkpoint, settings.encoder, settings.device)
