"""Encode, propose, decode: from flagged stretches of text to proposals for them.

A proposal is an embedding on the wanted side of the violated rules, written out by the decoder. In modes `project` and
`edit` it starts from the draft's own embedding, and the decoder has the draft in view; in mode `continue` the diffusion
makes it from what stood before. Candidates differ in how far they move, in whether the words that weigh most are hidden
from the decoder, and in chance; those of all requests are decoded as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice, pairwise
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardrail.dglm import checkpoint, phrase_table
from guardrail.dglm.batch import EMPTY, END, START, PrefixTokens, collate_prefix, collate_target, tokenise_prefix
from guardrail.dglm.batching import within_memory
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.diffusion_checkpoint import find_diffusion, load_diffusion
from guardrail.dglm.generate import Decoding, Written, generate
from guardrail.dglm.guidance import project
from guardrail.dglm.latents import Array
from guardrail.dglm.loss import output_index, token_log_probabilities
from guardrail.dglm.phrase_table import PhraseTable
from guardrail.dglm.plans import Plan, Proposed, SpanRequest, plan_candidates, plan_continuations, tidy
from guardrail.dglm.propose import EDIT, Diffusion, gaussian_diffusion
from guardrail.dglm.sampler import Cancelled
from guardrail.dglm.weighing import bad_clauses, weighty_words
from guardrail.encoder import load_encoder
from guardrail.errors import ConfigurationError, RewriteFailure
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.dglm.decoder import Decoder
    from guardrail.encoder import Encoder

__all__ = ["Pipeline", "Proposed", "SpanRequest", "load_pipeline"]

SIGNAL = 0.95
"""alpha squared that the prompt generator is told at inference (Lovelace et al. 2024, code)."""

MAX_DRAFT = 96
"""Word pieces of the longest stretch that the decoder was trained to rewrite."""

MAX_CONTINUATION = 40
"""Word pieces of a sentence that is written without a draft."""

SUBSTITUTES = 3
"""Copies with words replaced that are proposed to the decoder."""

MAX_SCORED = 200
"""Word pieces of a proposal that its fluency looks at."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One row of the decoder's batch: a plan of a request, its latent (latent_dim,) and its seed."""

    request: SpanRequest
    plan: Plan
    latent: Array
    seed: int


class Pipeline:
    """A loaded DGLM. Thread-safe: nothing is kept between calls.

    Args:
        encoder: of the checkpoint. loaded: the checkpoint. codec: of the encoder's vocabulary.
        diffusion: the trained network; None: `edit` uses the exact denoiser of Gaussian latents, `continue` is refused.
        phrases: which words to put for which; None: no drafts with words replaced.
    """

    def __init__(
        self,
        encoder: Encoder,
        loaded: checkpoint.Checkpoint,
        codec: Codec,
        diffusion: Diffusion | None = None,
        phrases: PhraseTable | None = None,
    ) -> None:
        self.encoder, self.statistics, self.decoder = encoder, loaded.statistics, loaded.decoder
        self.codec = codec
        self.sha256 = loaded.sha256
        if diffusion is not None:  # what it writes depends on both
            self.sha256 = sha256(f"{loaded.sha256}\n{diffusion.sha256}".encode()).hexdigest()
        self.trained = diffusion is not None
        self.diffusion = diffusion if diffusion is not None else gaussian_diffusion(loaded.statistics)
        self._phrases = phrases
        self._device = self.decoder.word.weight.device
        self._output_index = output_index(self.decoder)
        self._on_cpu: Decoder | None = None
        self._copying = Lock()

    def rewrite(self, request: SpanRequest) -> list[Proposed]:
        """Return distinct proposals for one request, see `rewrite_many`."""
        return self.rewrite_many([request])[0]

    def rewrite_many(self, requests: Sequence[SpanRequest]) -> list[list[Proposed]]:
        """Return distinct proposals for each request, at most its `candidates`, in the order of their plans.

        None for a request that was cancelled, nor, except in mode `continue`, for a stretch of more than `MAX_DRAFT`
        word pieces. What a request gets does not depend on its company, up to rounding.

        Raises:
            ConfigurationError: the mode needs a network that the checkpoint does not have.
            RewriteFailure: the diffusion broke down.
        """
        planned = [self._lines(request) for request in requests]
        lines = [line for own in planned for line in own]
        written = iter(within_memory(self._write, lines, lambda rows: self._write(rows, self._cpu_decoder())))
        found: list[list[str]] = []
        for request, own in zip(requests, planned, strict=True):
            texts = dict.fromkeys(tidy(row.text, request.text) for row in islice(written, len(own)) if row.ended)
            found.append([] if request.cancelled() else [text for text in texts if text])
        pairs = [(text, request.text) for request, own in zip(requests, found, strict=True) for text in own]
        fluencies = iter(self._fluencies(pairs))
        return [[Proposed(text, next(fluencies)) for text in texts] for texts in found]

    def write(
        self, embeddings: Array, prefixes: Sequence[PrefixTokens], decoding: Decoding, seed: int = 0
    ) -> list[Written]:
        """Write out wanted unit embeddings (B, d) after B prefixes, on whatever device and memory there is.

        Args:
            decoding: B temperatures and the shared settings. seed: of the rows that sample, unless they have `seeds`.

        Raises:
            RewriteFailure: an embedding is not finite.
        """
        latent = torch.from_numpy(self.statistics.normalise(embeddings))
        if not latent.isfinite().all():
            raise RewriteFailure("the wanted embeddings are not finite numbers")
        with self._precision():
            return generate(
                self.decoder,
                self.codec,
                latent,
                torch.full((len(prefixes),), SIGNAL),
                prefixes,
                decoding,
                torch.Generator().manual_seed(seed),
            )

    def prefix(self, draft: str, before: str) -> PrefixTokens:
        """Return what the decoder has in view: a draft, cut at `MAX_DRAFT` word pieces, and what stands before it."""
        return tokenise_prefix(self.codec, draft, before, MAX_DRAFT)

    def fluency(self, texts: Sequence[str], draft: str = "") -> list[float]:
        """Mean log-probability, in nats, of the words of each text that are new where they stand.

        The decoder as a plain language model that sees no draft: it is given the embedding of what the draft says (each
        text's own where there is no draft), so that a sentence which breaks off before it has said that is unlikely too.
        What stands in the draft with the same piece before it is taken to be as fluent as the draft; all else, above all
        the seam where words were left out, has to be likely. 0 where nothing is new.
        """
        return self._fluencies([(text, draft) for text in texts])

    # -- one batch of the decoder ------------------------------------------------------------------------------------

    def _lines(self, request: SpanRequest) -> list[_Line]:
        """Plan the candidates of a request and find the embedding that each should have."""
        continues = request.mode == "continue"
        if continues and not self.trained:
            raise ConfigurationError(
                "rewrite mode 'continue' needs a trained diffusion network, and this checkpoint has none; use 'project' "
                "or 'edit', or train one with `guardrail dglm train diffusion`"
            )
        if request.cancelled():
            return []
        if not continues and len(self.codec.encode(request.text, MAX_DRAFT + 1)) > MAX_DRAFT:
            return []  # a draft that the decoder sees only in part would lose its end
        try:
            if continues:
                plans = plan_continuations(request)
                embeddings = self._continued(request)
            else:
                words = weighty_words(self.encoder, request)
                plans = plan_candidates(
                    request, words, bad_clauses(self.encoder, request), self._replaced(request, words)
                )
                embeddings = self._targets(plans, request)
        except Cancelled:
            return []
        latents = self.statistics.normalise(embeddings)
        if not np.isfinite(latents).all():  # the decoder would write gibberish with confidence
            raise RewriteFailure(f"the proposals of mode {request.mode!r} are not finite numbers")
        return [
            _Line(request, plan, latent, (request.seed + 7919 * number) % 2**63)
            for number, (plan, latent) in enumerate(zip(plans, latents, strict=True))
        ]

    def _write(self, lines: Sequence[_Line], decoder: Decoder | None = None) -> list[Written]:
        if not lines:
            return []
        prefixes = [self.prefix(row.plan.draft, row.request.before) for row in lines]
        limit = max(len(prefix.draft) + 12 if prefix.draft else MAX_CONTINUATION for prefix in prefixes)
        decoding = Decoding(
            [row.plan.temperature for row in lines],
            max_tokens=limit,
            seeds=[row.seed for row in lines],
            forbidden=[row.request.forbidden for row in lines],
        )
        latent = torch.from_numpy(np.stack([row.latent for row in lines]).astype(np.float32))
        signal = torch.full((len(lines),), SIGNAL)
        with self._precision() if decoder is None else nullcontext():
            return generate(
                decoder or self.decoder,
                self.codec,
                latent,
                signal,
                prefixes,
                decoding,
                cancelled=lambda row: lines[row].request.cancelled(),
            )

    def _precision(self) -> AbstractContextManager[object]:
        """bfloat16 on a GPU; a CPU without matrix instructions for it is slower with it than in float32."""
        if self._device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)

    def _cpu_decoder(self) -> Decoder:
        with self._copying:
            if self._on_cpu is None:
                self._on_cpu = deepcopy(self.decoder).to("cpu")
            return self._on_cpu

    def _fluencies(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """`fluency` of (text, draft) pairs, as one batch where the memory allows."""
        if not pairs:
            return []
        latents = self.statistics.normalise(self.encoder.encode([draft or text for text, draft in pairs]))
        rows = [(text, draft, latent) for (text, draft), latent in zip(pairs, latents, strict=True)]
        return within_memory(self._score, rows, lambda own: self._score(own, self._cpu_decoder()))

    @torch.inference_mode()
    def _score(self, rows: Sequence[tuple[str, str, Array]], decoder: Decoder | None = None) -> list[float]:
        """Fluency of (text, draft, latent) rows under a decoder, the pipeline's own unless another is given."""
        own = self.decoder if decoder is None else decoder
        device = own.word.weight.device
        latent = torch.from_numpy(np.stack([latent for _, _, latent in rows])).to(device)
        signal = torch.full((len(rows),), SIGNAL, device=device)
        prefix = collate_prefix([PrefixTokens(EMPTY)] * len(rows), own.prompt(latent, signal)).to(device)
        target = collate_target([self.codec.encode(text, MAX_SCORED) for text, _, _ in rows])
        index = self._output_index.to(device)
        with self._precision() if decoder is None else nullcontext():
            log_probability, counts, _ = token_log_probabilities(own, prefix, target.to(device), index)
        drafts = {draft: self._bigrams(draft) for _, draft, _ in rows}
        fresh = torch.tensor(
            [
                [pair not in drafts[draft] for pair in zip(ids, following, strict=True)]
                for (_, draft, _), ids, following in zip(
                    rows, target.ids.tolist(), target.next_ids.tolist(), strict=True
                )
            ]
        )
        new = counts * fresh.to(device)
        return [float(mean) for mean in (log_probability * new).sum(dim=1) / new.sum(dim=1).clamp_min(1.0)]

    def _bigrams(self, draft: str) -> set[tuple[int, int]]:
        return set(pairwise((START, *self.codec.encode(draft).ids, END))) if draft else set()

    def _replaced(self, request: SpanRequest, words: Sequence[Span]) -> list[str]:
        """Copies of the draft with weighty words replaced as people replace them, best first."""
        if self._phrases is None:
            return []
        return self._phrases.substitutions(request.text, [*words, *request.matches], self.fluency, SUBSTITUTES)

    # -- wanted embeddings -------------------------------------------------------------------------------------------

    def _targets(self, plans: Sequence[Plan], request: SpanRequest) -> Array:
        """The wanted embedding of every plan, (K, d)."""
        texts = list(dict.fromkeys(plan.base for plan in plans))
        own = dict(zip(texts, self.encoder.encode(texts), strict=True))
        if request.mode == "edit":
            return self._edited(np.stack([own[plan.base] for plan in plans]), request)
        return np.stack([project(own[plan.base], request.guides, plan.margin, self.statistics) for plan in plans])

    def _edited(self, embeddings: Array, request: SpanRequest) -> Array:
        """SDEdit (Meng et al. 2022): noise the drafts' embeddings to `strength`, then denoise them under guidance."""
        return self.diffusion.propose(
            len(embeddings),
            request.guides,
            before=self._before(request),
            start=embeddings,
            strength=request.strength,
            seed=request.seed,
            settings=EDIT,
            cancelled=request.cancelled,
        ).embeddings

    def _continued(self, request: SpanRequest) -> Array:
        """Proposals from pure noise, conditioned on what stood before (Lovelace et al. 2024, section 4.2); (K, d)."""
        return self.diffusion.propose(
            request.candidates,
            request.guides,
            before=self._before(request),
            seed=request.seed,
            cancelled=request.cancelled,
        ).embeddings

    def _before(self, request: SpanRequest) -> Array | None:
        return self.encoder.encode([request.before])[0] if request.before.strip() else None


@lru_cache(maxsize=4)
def load_pipeline(name: str, encoder: str, device: str) -> Pipeline:
    """Load a checkpoint with its encoder, and its diffusion network if it has one; one per process.

    Raises:
        CheckpointError: missing, damaged, or of another encoder.
    """
    loaded_encoder = load_encoder(encoder, device)
    folder = checkpoint.locate(name)
    loaded = checkpoint.load(folder, loaded_encoder.sha256, loaded_encoder.device)
    diffusion = load_diffusion(folder, loaded_encoder.sha256, loaded_encoder.device) if find_diffusion(folder) else None
    codec = Codec(word_tokenizer(loaded_encoder.directory))
    table = folder / phrase_table.FILE
    phrases = phrase_table.load(table) if table.is_file() else None
    return Pipeline(loaded_encoder, loaded, codec, diffusion, phrases)
