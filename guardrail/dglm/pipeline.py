"""Encode, propose, decode: from a flagged stretch of text to proposals for it.

A proposal is the draft's own embedding, moved to the wanted side of the violated rules, written out by the decoder
with the
draft in view. Candidates differ in how far they move, in whether the words that weigh most are hidden from the
decoder, and in chance; all of them are decoded as one batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardrail.dglm import checkpoint
from guardrail.dglm.batch import PrefixTokens, tokenise_prefix
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.denoiser import gaussian_denoiser
from guardrail.dglm.generate import Decoding, Written, generate
from guardrail.dglm.guidance import Guide, guided, project
from guardrail.dglm.latents import Array
from guardrail.dglm.sampler import ddim
from guardrail.dglm.schedule import CosineSchedule
from guardrail.encoder import load_encoder
from guardrail.errors import ConfigurationError
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

SIGNAL = 0.95
"""alpha squared that the prompt generator is told at inference (Lovelace et al. 2024, code)."""

MARGINS = (1.0, 2.5, 4.0, 6.0)
"""Wanted logits on the allowed side, at strength 0.5; they scale with strength."""

MAX_HIDDEN = 6
"""Words that are hidden from the decoder at most."""

EDIT_STEPS = 15
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class SpanRequest:
    """One stretch to rewrite; the fields mean what those of `guardrail.rewrite.base.RewriteRequest` mean."""

    text: str
    before: str = ""
    matches: tuple[Span, ...] = ()
    guides: tuple[Guide, ...] = ()
    candidates: int = 8
    strength: float = 0.5
    mode: str = "project"
    seed: int = 0
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class _Plan:
    """One candidate: what the decoder sees, how far its embedding moves, and the temperature (0 is greedy)."""

    draft: str
    margin: float
    temperature: float


class Pipeline:
    """A loaded DGLM. Thread-safe: nothing is kept between calls."""

    def __init__(self, encoder: Encoder, loaded: checkpoint.Checkpoint, codec: Codec) -> None:
        self.encoder, self.statistics, self.decoder = encoder, loaded.statistics, loaded.decoder
        self.sha256, self.codec = loaded.sha256, codec

    def rewrite(self, request: SpanRequest) -> list[Written]:
        """Return distinct proposals, at most `request.candidates`, in the order in which they were planned.

        Raises:
            ConfigurationError: the mode needs a network that the checkpoint does not have.
        """
        if request.mode == "continue":
            raise ConfigurationError(
                "rewrite mode 'continue' needs a trained diffusion network; use 'project' or 'edit'"
            )
        visible = _without(request.text, request.matches)
        hidden = self._hide_words(visible, request.guides)
        plans = _plans(visible, hidden, request)
        embeddings = self._targets(plans, request)
        prefixes = [self._prefix(plan.draft, request.before) for plan in plans]
        longest = max(len(prefix.draft) for prefix in prefixes)
        written = generate(
            self.decoder,
            self.codec,
            torch.from_numpy(self.statistics.normalise(embeddings)),
            torch.full((len(plans),), SIGNAL),
            prefixes,
            Decoding([plan.temperature for plan in plans], max_tokens=longest + 12),
            torch.Generator().manual_seed(request.seed),
            request.cancelled,
        )
        distinct: dict[str, Written] = {}
        for row in written:
            if row.text.strip() and row.ended:
                distinct.setdefault(row.text.strip(), row)
        return list(distinct.values())

    def _prefix(self, draft: str, before: str) -> PrefixTokens:
        return tokenise_prefix(self.codec, draft, before)

    def _targets(self, plans: Sequence[_Plan], request: SpanRequest) -> Array:
        """The wanted embedding of every plan, (K, d)."""
        drafts = list(dict.fromkeys(plan.draft for plan in plans))
        own = dict(zip(drafts, self.encoder.encode(drafts), strict=True))
        if request.mode == "edit":
            return self._edited([own[plan.draft] for plan in plans], request)
        return np.stack([project(own[plan.draft], request.guides, plan.margin, self.statistics) for plan in plans])

    def _edited(self, embeddings: Sequence[Array], request: SpanRequest) -> Array:
        """SDEdit (Meng et al. 2022): noise the drafts' embeddings to `strength`, then denoise them under guidance."""
        schedule = CosineSchedule()
        alpha, sigma = schedule.levels(request.strength)
        latent = self.statistics.normalise(np.stack(embeddings))
        noise = np.random.default_rng(request.seed).standard_normal(latent.shape)
        denoiser = guided(gaussian_denoiser(self.statistics), request.guides, self.statistics, scale=8.0)
        start = (alpha * latent + sigma * noise).astype(np.float32)
        return self.statistics.denormalise(ddim(start, denoiser, schedule, EDIT_STEPS, request.strength))

    def _hide_words(self, text: str, guides: Sequence[Guide]) -> str:
        """Leave out the words that hold the text on the wrong side, worst first, until it would pass.

        Leave-one-out over words (Li et al. 2016, "Understanding neural networks through representation erasure"):
        one batch for the ranking, one for the choice.
        """
        words = [match.span() for match in _WORD.finditer(text)]
        away = [guide for guide in guides if guide.away]
        if not away or not 2 <= len(words) <= 60:
            return text
        base, *without = self._violation([text, *(_without(text, [word]) for word in words)], away)
        gains = base - np.array(without)
        order = [int(index) for index in np.argsort(-gains) if gains[index] > 0.0][:MAX_HIDDEN]
        if not order:
            return text
        trials = [_without(text, [words[index] for index in order[: count + 1]]) for count in range(len(order))]
        levels = self._violation(trials, away)
        passing = next((trial for trial, level in zip(trials, levels, strict=True) if level < -MARGINS[0]), None)
        chosen = passing if passing is not None else trials[int(np.argmin(levels))]
        return chosen if chosen.strip(" .,!?;:") else text

    def _violation(self, texts: Sequence[str], guides: Sequence[Guide]) -> Array:
        """The largest guide logit of each text (N,)."""
        x = self.encoder.encode(texts)
        worst: Array = np.max([x @ guide.weight + guide.bias for guide in guides], axis=0)
        return worst


def _plans(visible: str, hidden: str, request: SpanRequest) -> list[_Plan]:
    """Lay out the candidates: greedy ones first, over both drafts and rising margins, then samples."""
    scale = request.strength / 0.5
    near, middle, far, extreme = (margin * scale for margin in MARGINS)
    order = [
        _Plan(visible, near, 0.0),
        _Plan(hidden, near, 0.0),
        _Plan(visible, far, 0.0),
        _Plan(hidden, far, 0.0),
        _Plan(visible, extreme, 0.0),
        _Plan(hidden, middle, 0.7),
        _Plan(visible, middle, 0.7),
        _Plan(hidden, extreme, 0.0),
    ]
    drafts = (visible, hidden)
    more = [
        _Plan(drafts[index % 2], (near, middle, far, extreme)[index // 2 % 4], 0.8)
        for index in range(request.candidates)
    ]
    return [*order, *more][: request.candidates]


def _without(text: str, spans: Sequence[Span]) -> str:
    """Return the text with the spans cut out and the white space closed up."""
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + text[end:]
    return " ".join(text.split())


@lru_cache(maxsize=4)
def load_pipeline(name: str, encoder: str, device: str) -> Pipeline:
    """Load a checkpoint with its encoder; one per process.

    Raises:
        CheckpointError: missing, damaged, or of another encoder.
    """
    loaded_encoder = load_encoder(encoder, device)
    loaded = checkpoint.load(checkpoint.locate(name), loaded_encoder.sha256, loaded_encoder.device)
    return Pipeline(loaded_encoder, loaded, Codec(word_tokenizer(loaded_encoder.directory)))
