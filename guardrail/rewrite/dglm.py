"""The DGLM as a rewriter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from guardrail.dglm.pipeline import Pipeline, Proposed, SpanRequest, load_pipeline
from guardrail.errors import RewriteFailure
from guardrail.microbatch import MicroBatcher
from guardrail.rewrite.base import Proposal, RewriteRequest

if TYPE_CHECKING:
    from guardrail.settings import Settings

_STRETCHES = {"cpu": 8, "cuda": 64}
"""Stretches that are rewritten in one batch. More are no faster, and the first would wait for the last."""


class DGLMRewriter:
    """Move the stretch's embedding to the allowed side of the violated rules and write it anew with the draft in view.

    Calls from several threads at the same time are decoded as one batch.

    Args:
        checkpoint: name of a shipped checkpoint, or a directory. encoder: name of the sentence encoder. device:
            auto, cpu or cuda.
    """

    name = "dglm"
    rounds = 2

    def __init__(self, checkpoint: str, encoder: str, device: str) -> None:
        self._names = (checkpoint, encoder, device)
        self._lock = Lock()

    @cached_property
    def pipeline(self) -> Pipeline:
        """The loaded checkpoint; loading takes seconds and happens on first use."""
        with self._lock:
            return load_pipeline(*self._names)  # cached: a second thread gets the first one's

    @cached_property
    def _batcher(self) -> MicroBatcher[SpanRequest, list[list[Proposed]]]:
        limit = _STRETCHES[self.pipeline.encoder.device]
        with self._lock:
            existing: MicroBatcher[SpanRequest, list[list[Proposed]]] | None = self.__dict__.get("_batcher")
            made = existing or MicroBatcher(self._rewrite, limit)
            self.__dict__["_batcher"] = made
            return made

    def _rewrite(self, requests: Sequence[SpanRequest]) -> list[list[Proposed]]:
        return self.pipeline.rewrite_many(requests)

    @property
    def fingerprint(self) -> str:
        """Hash of the decoder's weights and the latent statistics."""
        return f"sha256:{self.pipeline.sha256}"

    def propose(self, requests: list[RewriteRequest]) -> list[list[Proposal]]:
        """Return up to `candidates` distinct proposals per request.

        Raises:
            RewriteFailure: cancelled.
        """
        found = self._batcher([_span_request(request) for request in requests])
        if any(request.cancelled() for request in requests):
            raise RewriteFailure("the rewrite was cancelled or ran out of time")
        return [[Proposal(row.text, row.fluency) for row in rows] for rows in found]


def _span_request(request: RewriteRequest) -> SpanRequest:
    return SpanRequest(
        text=request.text,
        before=request.before,
        matches=request.matches,
        guides=request.guides,
        candidates=request.candidates,
        strength=request.strength,
        mode=request.mode,
        seed=request.seed + request.round,
        round=request.round,
        cancelled=request.cancelled,
        forbidden=request.forbidden,
    )


def build(settings: Settings) -> DGLMRewriter:
    """Registry entry."""
    return DGLMRewriter(settings.rewriter.checkpoint, settings.encoder, settings.device)
