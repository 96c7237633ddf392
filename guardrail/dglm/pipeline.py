"""Encode, propose, decode: from flagged stretches of text to proposals for them.

A proposal is an embedding on the wanted side of the violated rules, written out by the decoder. In modes `project` and
`edit` it starts from the draft's own embedding, and the decoder has the draft in view; in mode `continue` the diffusion
makes it from what stood before. Candidates differ in how far they move, in whether the words that weigh most are hidden
from the decoder, and in chance; those of all requests are decoded as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from guardrail.dglm import checkpoint, phrase_table
from guardrail.dglm.batch import PrefixTokens
from guardrail.dglm.causal import load_writer
from guardrail.dglm.causal_rewriting import CausalRewriting
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.diffusion_checkpoint import find_diffusion, load_diffusion
from guardrail.dglm.embedding import Embeds, Once
from guardrail.dglm.generate import Decoding, Written
from guardrail.dglm.guidance import project
from guardrail.dglm.latents import Array, LatentStatistics
from guardrail.dglm.memory import within_memory
from guardrail.dglm.phrase_table import PhraseTable
from guardrail.dglm.plans import Plan, Proposed, SpanRequest, plan_candidates, plan_continuations, tidy
from guardrail.dglm.propose import EDIT, Diffusion, gaussian_diffusion
from guardrail.dglm.sampler import Cancelled
from guardrail.dglm.token_states import token_states
from guardrail.dglm.weighing import bad_clauses, narrowed, weighty_words
from guardrail.dglm.writer import DraftWriter, Line, Writer
from guardrail.encoder import load_encoder
from guardrail.errors import ConfigurationError, RewriteFailure
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.dglm.decoder import Decoder
    from guardrail.encoder import Encoder

__all__ = ["Pipeline", "Proposed", "SpanRequest", "load_pipeline"]

SUBSTITUTES = 3
"""Copies with words replaced that are proposed to the decoder."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A request on its way, and the embeddings that its call has made so far."""

    request: SpanRequest
    encoder: Embeds


class Pipeline:
    """A loaded DGLM. Thread-safe: nothing is kept between calls.

    Args:
        encoder: of the checkpoint. statistics: of its latents. writer: turns latents into text. sha256: of the writer's
            weights and the statistics.
        diffusion: the trained network; None: `edit` uses the exact denoiser of Gaussian latents, `continue` is refused.
        phrases: which words to put for which; None: no drafts with words replaced.
    """

    def __init__(
        self,
        encoder: Encoder,
        statistics: LatentStatistics,
        writer: Writer,
        sha256_of_weights: str,
        diffusion: Diffusion | None = None,
        phrases: PhraseTable | None = None,
    ) -> None:
        self.encoder, self.statistics, self.writer = encoder, statistics, writer
        self.sha256 = sha256_of_weights
        if diffusion is not None:  # what it writes depends on both
            self.sha256 = sha256(f"{sha256_of_weights}\n{diffusion.sha256}".encode()).hexdigest()
        self.trained = diffusion is not None
        self.diffusion = diffusion if diffusion is not None else gaussian_diffusion(statistics)
        self._phrases = phrases

    def rewrite(self, request: SpanRequest) -> list[Proposed]:
        """Return distinct proposals for one request, see `rewrite_many`."""
        return self.rewrite_many([request])[0]

    def rewrite_many(self, requests: Sequence[SpanRequest]) -> list[list[Proposed]]:
        """Return distinct proposals for each request, at most its `candidates`, in the order of their plans.

        None for a request that was cancelled, nor, except in mode `continue`, for a stretch that the writer cannot see
        whole (`max_draft`). What a request gets does not depend on its company, up to rounding.

        Raises:
            ConfigurationError: the mode needs a network that the checkpoint does not have.
            RewriteFailure: the diffusion broke down.
        """
        encoder = Once(self.encoder)
        planned = [self._lines(_Work(narrowed(request), encoder)) for request in requests]
        written = iter(self._write([line for own in planned for line in own]))
        found: list[list[str]] = []
        for request, own in zip(requests, planned, strict=True):
            texts = dict.fromkeys(tidy(row.text, request.text) for row in islice(written, len(own)) if row.ended)
            found.append([] if request.cancelled() else [text for text in texts if text])
        drafts = ["" if request.mode == "continue" else request.text for request in requests]
        pairs = [(text, draft) for draft, own in zip(drafts, found, strict=True) for text in own]
        fluencies = iter(self._fluencies(pairs, encoder))
        return [[Proposed(text, next(fluencies)) for text in texts] for texts in found]

    def fluency(self, texts: Sequence[str], draft: str = "") -> list[float]:
        """Log-probability, in nats, of the words of each text that are new where they stand.

        The shipped decoder has the draft in view and is given its embedding (each text's own where there is no draft), so
        that it asks: would people have put this for that? What stands in the draft with the same piece before it is taken
        to be as fluent as the draft; all else, above all the seam where words were left out, has to be likely. 0 where
        nothing is new; the mean, not the total, where there is no draft.
        """
        return self._fluencies([(text, draft) for text in texts], self.encoder)

    # -- the shipped kind of decoder, token by token; for evaluation -------------------------------------------------

    @property
    def decoder(self) -> Decoder:
        """The shipped kind of decoder.

        Raises:
            ConfigurationError: the checkpoint has another writer.
        """
        return self._draft_writer.decoder

    @property
    def codec(self) -> Codec:
        """Of the shipped kind of decoder; errors as `decoder`."""
        return self._draft_writer.codec

    def prefix(self, draft: str, before: str) -> PrefixTokens:
        """Return what the shipped kind of decoder has in view; errors as `decoder`."""
        return self._draft_writer.prefix(draft, before)

    def write(
        self, embeddings: Array, prefixes: Sequence[PrefixTokens], decoding: Decoding, seed: int = 0
    ) -> list[Written]:
        """Write out wanted unit embeddings (B, d) after B prefixes.

        Args:
            decoding: B temperatures and the shared settings. seed: of the rows that sample, unless they have `seeds`.

        Raises:
            RewriteFailure: an embedding is not finite. ConfigurationError: as `decoder`.
        """
        latent = torch.from_numpy(self.statistics.normalise(embeddings))
        if not latent.isfinite().all():
            raise RewriteFailure("the wanted embeddings are not finite numbers")
        return self._draft_writer.generate(latent, prefixes, decoding, torch.Generator().manual_seed(seed))

    @property
    def _draft_writer(self) -> DraftWriter:
        if not isinstance(self.writer, DraftWriter):
            raise ConfigurationError(
                "this measures the shipped kind of decoder token by token, and the checkpoint has a causal language model"
            )
        return self.writer

    # -- one batch of the writer -------------------------------------------------------------------------------------

    def _lines(self, work: _Work) -> list[Line]:
        """Plan the candidates of a request and find the embedding that each should have."""
        request = work.request
        continues = request.mode == "continue"
        if continues and not self.trained:
            raise ConfigurationError(
                "rewrite mode 'continue' needs a trained diffusion network, and this checkpoint has none; use 'project' "
                "or 'edit', or train one with `guardrail dglm train diffusion`"
            )
        if request.cancelled():
            return []
        longest = self.writer.max_draft
        if not continues and self.writer.length(request.text, longest + 1) > longest:
            return []  # a draft that the decoder sees only in part would lose its end
        try:
            plans = plan_continuations(request) if continues else self._plans(work)
            embeddings = self._continued(work) if continues else self._targets(plans, work)
        except Cancelled:
            return []
        latents = self.statistics.normalise(embeddings)
        if not np.isfinite(latents).all():  # the decoder would write gibberish with confidence
            raise RewriteFailure(f"the proposals of mode {request.mode!r} are not finite numbers")
        return [
            Line(
                latent,
                plan.draft,
                request.before,
                plan.temperature,
                (request.seed + 7919 * number) % 2**63,
                request.forbidden,
                request.cancelled,
            )
            for number, (plan, latent) in enumerate(zip(plans, latents, strict=True))
        ]

    def _plans(self, work: _Work) -> list[Plan]:
        words = weighty_words(work.encoder, work.request)
        bad = bad_clauses(work.encoder, work.request)
        return plan_candidates(work.request, words, bad, self._replaced(work, words))

    def _write(self, lines: Sequence[Line]) -> list[Written]:
        if not lines:
            return []
        return within_memory(self.writer.write, lines, lambda own: self.writer.on_cpu().write(own))

    def _fluencies(self, pairs: Sequence[tuple[str, str]], encoder: Embeds) -> list[float]:
        """`fluency` of (text, draft) pairs, as one batch where the memory allows."""
        if not pairs:
            return []
        said = list(dict.fromkeys(draft or text for text, draft in pairs))
        latents = dict(zip(said, self.statistics.normalise(encoder.encode(said)), strict=True))
        rows = [(text, draft, latents[draft or text]) for text, draft in pairs]
        return within_memory(self.writer.fluency, rows, lambda own: self.writer.on_cpu().fluency(own))

    def _replaced(self, work: _Work, words: Sequence[Span]) -> list[str]:
        """Copies of the draft with weighty words replaced as people replace them, best first."""
        if self._phrases is None:
            return []

        def fluency(texts: Sequence[str], draft: str) -> list[float]:
            return self._fluencies([(text, draft) for text in texts], work.encoder)

        spans = [*words, *work.request.matches]
        return self._phrases.substitutions(work.request.text, spans, fluency, SUBSTITUTES)

    # -- wanted embeddings -------------------------------------------------------------------------------------------

    def _targets(self, plans: Sequence[Plan], work: _Work) -> Array:
        """The wanted embedding of every plan, (K, d)."""
        own, request = work.encoder.encode([plan.base for plan in plans]), work.request
        if request.mode == "edit":
            return self._edited(own, work)
        moved = [project(x, request.guides, plan.margin, self.statistics) for x, plan in zip(own, plans, strict=True)]
        return np.stack(moved)

    def _edited(self, embeddings: Array, work: _Work) -> Array:
        """SDEdit (Meng et al. 2022): noise the drafts' embeddings to `strength`, then denoise them under guidance."""
        request = work.request
        return self.diffusion.propose(
            len(embeddings),
            request.guides,
            **self._before(work),
            start=embeddings,
            strength=request.strength,
            seed=request.seed,
            settings=EDIT,
            cancelled=request.cancelled,
        ).embeddings

    def _continued(self, work: _Work) -> Array:
        """Proposals from pure noise, conditioned on what stood before (Lovelace et al. 2024, section 4.2); (K, d)."""
        request = work.request
        return self.diffusion.propose(
            request.candidates,
            request.guides,
            **self._before(work),
            seed=request.seed,
            cancelled=request.cancelled,
        ).embeddings

    def _before(self, work: _Work) -> dict[str, Any]:
        """What stands before, as `Diffusion.propose` takes it: the embedding, and the token states if it looks at them."""
        text, network = work.request.before, self.diffusion.network
        if not text.strip():
            return {}
        before = {"before": work.encoder.encode([text])[0]}
        if network is None or not network.config.states:
            return before
        return {**before, "states": token_states(self.encoder, self.encoder.tokens([text]))}


@lru_cache(maxsize=4)
def load_pipeline(name: str, encoder: str, device: str) -> Pipeline:
    """Load a checkpoint with its encoder, and its diffusion network if it has one; one per process.

    Raises:
        CheckpointError: missing, damaged, or of another encoder.
    """
    loaded = load_encoder(encoder, device)
    folder = checkpoint.locate(name)
    writer, statistics, digest = _load_writer(folder, loaded)
    diffusion = load_diffusion(folder, loaded.sha256, loaded.device) if find_diffusion(folder) else None
    table = folder / phrase_table.FILE
    phrases = phrase_table.load(table) if table.is_file() else None
    return Pipeline(loaded, statistics, writer, digest, diffusion, phrases)


def _load_writer(folder: Path, encoder: Encoder) -> tuple[Writer, LatentStatistics, str]:
    """Return what decodes, the statistics of latents, and the hash over the checkpoint's weights."""
    if checkpoint.has_causal(folder):
        statistics = checkpoint.load_statistics(folder, encoder.sha256)
        causal = CausalRewriting(load_writer(folder, encoder.sha256, encoder.device))
        return causal, statistics, checkpoint.sha256(folder)
    loaded = checkpoint.load(folder, encoder.sha256, encoder.device)
    writer = DraftWriter(loaded.decoder, Codec(word_tokenizer(encoder.directory)))
    return writer, loaded.statistics, loaded.sha256
