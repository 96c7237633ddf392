"""Encode, propose, decode: from flagged stretches of text to proposals for them.

A proposal is an embedding on the wanted side of the violated rules, written out by the decoder. In modes `project` and
`edit` it starts from the draft's own embedding, and the decoder has the draft in view; in mode `continue` the diffusion
makes it from what stood before. Candidates differ in how far they move, in whether the words that weigh most are hidden
from the decoder, and in chance; those of all requests are decoded as one batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardrail.dglm import checkpoint
from guardrail.dglm.batch import EMPTY, END, START, PrefixTokens, collate_prefix, collate_target, tokenise_prefix
from guardrail.dglm.batching import within_memory
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.denoiser import gaussian_denoiser
from guardrail.dglm.generate import Decoding, Written, generate
from guardrail.dglm.guidance import Guide, guided, project
from guardrail.dglm.latents import Array
from guardrail.dglm.loss import output_index, token_log_probabilities
from guardrail.dglm.plans import Plan, Proposed, SpanRequest, cut, overlaps, plan_candidates, tidy
from guardrail.dglm.sampler import ddim
from guardrail.dglm.schedule import CosineSchedule
from guardrail.encoder import load_encoder
from guardrail.errors import ConfigurationError
from guardrail.text.clauses import clauses
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.dglm.decoder import Decoder
    from guardrail.encoder import Encoder

__all__ = ["Pipeline", "Proposed", "SpanRequest", "load_pipeline"]

SIGNAL = 0.95
"""alpha squared that the prompt generator is told at inference (Lovelace et al. 2024, code)."""

MAX_HIDDEN = 6
"""Words that are hidden from the decoder at most."""

MAX_DRAFT = 96
"""Word pieces of the longest stretch that the decoder was trained to rewrite."""

MAX_CONTINUATION = 40
"""Word pieces of a sentence that is written without a draft."""

MAX_SCORED = 200
"""Word pieces of a proposal that its fluency looks at."""

MAX_RANKED = 60
"""Longer stretches are not searched for weighty words."""

CLEAR = -0.5
"""Logit below which a text without its weighty words counts as passing."""

EDIT_STEPS = 15
_WORD = re.compile(r"\S+")


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
    """

    def __init__(self, encoder: Encoder, loaded: checkpoint.Checkpoint, codec: Codec) -> None:
        self.encoder, self.statistics, self.decoder = encoder, loaded.statistics, loaded.decoder
        self.sha256, self.codec = loaded.sha256, codec
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
        """
        latent = torch.from_numpy(self.statistics.normalise(embeddings))
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

    def fluency(self, texts: Sequence[str], draft: str = "") -> list[float]:
        """Mean log-probability, in nats, of the words of each text that are new where they stand.

        The decoder as a plain language model: it is given each text's own embedding and no draft. What stands in the
        draft with the same piece before it is taken to be as fluent as the draft; all else, above all the seam where
        words were left out, has to be likely. 0 where nothing is new.
        """
        return self._fluencies([(text, draft) for text in texts])

    # -- one batch of the decoder ------------------------------------------------------------------------------------

    def _lines(self, request: SpanRequest) -> list[_Line]:
        """Plan the candidates of a request and find the embedding that each should have."""
        if request.mode == "continue":
            raise ConfigurationError(
                "rewrite mode 'continue' needs a trained diffusion network; use 'project' or 'edit'"
            )
        if request.cancelled() or len(self.codec.encode(request.text, MAX_DRAFT + 1)) > MAX_DRAFT:
            return []  # a draft that the decoder sees only in part would lose its end
        plans = plan_candidates(request, self._weighty_words(request), self._bad_clauses(request))
        embeddings = self._targets(plans, request)
        latents = self.statistics.normalise(embeddings)
        return [
            _Line(request, plan, latent, (request.seed + 7919 * number) % 2**63)
            for number, (plan, latent) in enumerate(zip(plans, latents, strict=True))
        ]

    def _write(self, lines: Sequence[_Line], decoder: Decoder | None = None) -> list[Written]:
        if not lines:
            return []
        prefixes = [tokenise_prefix(self.codec, row.plan.draft, row.request.before, MAX_DRAFT) for row in lines]
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

    @torch.inference_mode()
    def _fluencies(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """`fluency` of (text, draft) pairs, as one batch."""
        if not pairs:
            return []
        texts = [text for text, _ in pairs]
        latent = torch.from_numpy(self.statistics.normalise(self.encoder.encode(texts))).to(self._device)
        signal = torch.full((len(texts),), SIGNAL, device=self._device)
        prefix = collate_prefix([PrefixTokens(EMPTY)] * len(texts), self.decoder.prompt(latent, signal))
        target = collate_target([self.codec.encode(text, MAX_SCORED) for text in texts])
        with self._precision():
            log_probability, counts, _ = token_log_probabilities(
                self.decoder, prefix.to(self._device), target.to(self._device), self._output_index
            )
        drafts = {draft: self._bigrams(draft) for _, draft in pairs}
        fresh = torch.tensor(
            [
                [pair not in drafts[draft] for pair in zip(ids, following, strict=True)]
                for (_, draft), ids, following in zip(pairs, target.ids.tolist(), target.next_ids.tolist(), strict=True)
            ]
        )
        new = counts * fresh.to(self._device)
        return [float(mean) for mean in (log_probability * new).sum(dim=1) / new.sum(dim=1).clamp_min(1.0)]

    def _bigrams(self, draft: str) -> set[tuple[int, int]]:
        return set(pairwise((START, *self.codec.encode(draft).ids, END))) if draft else set()

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
        schedule = CosineSchedule()
        alpha, sigma = schedule.levels(request.strength)
        latent = self.statistics.normalise(embeddings)
        noise = np.random.default_rng(request.seed).standard_normal(latent.shape)
        denoiser = guided(gaussian_denoiser(self.statistics), request.guides, self.statistics, scale=8.0)
        start = (alpha * latent + sigma * noise).astype(np.float32)
        return self.statistics.denormalise(ddim(start, denoiser, schedule, EDIT_STEPS, request.strength))

    # -- what to hide ------------------------------------------------------------------------------------------------

    def _weighty_words(self, request: SpanRequest) -> list[Span]:
        """The words that hold the text on the wrong side: the fewest, worst first, without which it would pass.

        Leave-one-out over words (Li et al. 2016, "Understanding neural networks through representation erasure"): one
        batch for the ranking, one for the choice.
        """
        text, matches = request.text, list(request.matches)
        words = [match.span() for match in _WORD.finditer(text) if not overlaps(match.span(), matches)]
        away = [guide for guide in request.guides if guide.away]
        if not away or not 2 <= len(words) <= MAX_RANKED:
            return []
        base, *without = self._violation([cut(text, matches), *(cut(text, [*matches, word]) for word in words)], away)
        gains = base - np.array(without)
        order = [words[index] for index in np.argsort(-gains) if gains[index] > 0.0][: min(MAX_HIDDEN, len(words) - 1)]
        trials = [order[: count + 1] for count in range(len(order))]
        if not trials:
            return []
        levels = self._violation([cut(text, [*matches, *trial]) for trial in trials], away)
        passing = next((trial for trial, level in zip(trials, levels, strict=True) if level < CLEAR), None)
        return passing if passing is not None else trials[int(np.argmin(levels))]

    def _bad_clauses(self, request: SpanRequest) -> list[Span]:
        """The clauses that would not pass by themselves; none if there is nothing else."""
        parts = clauses(request.text)
        away = [guide for guide in request.guides if guide.away]
        if not away or len(parts) < 2:
            return []
        levels = self._violation([request.text[start:end] for start, end in parts], away)
        bad = [part for part, level in zip(parts, levels, strict=True) if level > CLEAR]
        return bad if len(bad) < len(parts) else []

    def _violation(self, texts: Sequence[str], guides: Sequence[Guide]) -> Array:
        """The largest guide logit of each text (N,)."""
        x = self.encoder.encode(texts)
        worst: Array = np.max([x @ guide.weight + guide.bias for guide in guides], axis=0)
        return worst


@lru_cache(maxsize=4)
def load_pipeline(name: str, encoder: str, device: str) -> Pipeline:
    """Load a checkpoint with its encoder; one per process.

    Raises:
        CheckpointError: missing, damaged, or of another encoder.
    """
    loaded_encoder = load_encoder(encoder, device)
    loaded = checkpoint.load(checkpoint.locate(name), loaded_encoder.sha256, loaded_encoder.device)
    return Pipeline(loaded_encoder, loaded, Codec(word_tokenizer(loaded_encoder.directory)))
