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
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from guardrail.dglm import checkpoint
from guardrail.dglm.batch import EMPTY, END, START, PrefixTokens, collate_prefix, collate_target, tokenise_prefix
from guardrail.dglm.codec import HIDDEN, Codec, word_tokenizer
from guardrail.dglm.denoiser import gaussian_denoiser
from guardrail.dglm.generate import Decoding, generate
from guardrail.dglm.guidance import Guide, guided, project
from guardrail.dglm.latents import Array
from guardrail.dglm.loss import output_index, token_log_probabilities
from guardrail.dglm.sampler import ddim
from guardrail.dglm.schedule import CosineSchedule
from guardrail.encoder import load_encoder
from guardrail.errors import ConfigurationError
from guardrail.text.clauses import clauses
from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

SIGNAL = 0.95
"""alpha squared that the prompt generator is told at inference (Lovelace et al. 2024, code)."""

MARGINS = (1.0, 2.5, 4.0, 6.0)
"""Wanted logits on the allowed side, at strength 0.5; they scale with strength."""

MAX_HIDDEN = 6
"""Words that are hidden from the decoder at most."""

MAX_DRAFT = 96
"""Word pieces of the longest stretch that the decoder was trained to rewrite."""

MAX_SCORED = 200
"""Word pieces of a proposal that its fluency looks at."""

MAX_RANKED = 60
"""Longer stretches are not searched for weighty words."""

CLEAR = -0.5
"""Logit below which a text without its weighty words counts as passing."""

EDIT_STEPS = 15
_WORD = re.compile(r"\S+")
_CONJUNCTION = re.compile(r"(?:and|but|or|so|because)\s+", re.IGNORECASE)
_HANGING = re.compile(r"[\s,;:]+([.!?]|$)")
_STOPS = frozenset(".!?")


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
class Proposed:
    """A proposal and its fluency, see `Pipeline.fluency`."""

    text: str
    fluency: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """One candidate.

    Attributes:
        draft: what the decoder sees, with hidden words as marks. base: the text whose embedding is moved.
        margin: wanted logit on the allowed side. temperature: of sampling, 0 is greedy.
    """

    draft: str
    base: str
    margin: float
    temperature: float


class Pipeline:
    """A loaded DGLM. Thread-safe: nothing is kept between calls."""

    def __init__(self, encoder: Encoder, loaded: checkpoint.Checkpoint, codec: Codec) -> None:
        self.encoder, self.statistics, self.decoder = encoder, loaded.statistics, loaded.decoder
        self.sha256, self.codec = loaded.sha256, codec
        self._device = self.decoder.word.weight.device
        self._output_index = output_index(self.decoder)

    def rewrite(self, request: SpanRequest) -> list[Proposed]:
        """Return distinct proposals, at most `request.candidates`, in the order in which they were planned.

        None for a stretch of more than `MAX_DRAFT` word pieces.

        Raises:
            ConfigurationError: the mode needs a network that the checkpoint does not have.
        """
        if request.mode == "continue":
            raise ConfigurationError(
                "rewrite mode 'continue' needs a trained diffusion network; use 'project' or 'edit'"
            )
        if len(self.codec.encode(request.text, MAX_DRAFT + 1)) > MAX_DRAFT:
            return []  # a draft that the decoder sees only in part would lose its end
        plans = _plans(request, self._weighty_words(request), self._bad_clauses(request))
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
        found = dict.fromkeys(tidy(row.text, request.text) for row in written if row.ended)
        return [
            Proposed(text, fluency)
            for text, fluency in zip(found, self.fluency(list(found), request.text), strict=True)
            if text
        ]

    @torch.inference_mode()
    def fluency(self, texts: Sequence[str], draft: str = "") -> list[float]:
        """Mean log-probability, in nats, of the words of each text that are new where they stand.

        The decoder as a plain language model: it is given each text's own embedding and no draft. What stands in the
        draft with the same piece before it is taken to be as fluent as the draft; all else, above all the seam where
        words were left out, has to be likely. 0 where nothing is new.
        """
        if not texts:
            return []
        latent = torch.from_numpy(self.statistics.normalise(self.encoder.encode(texts))).to(self._device)
        signal = torch.full((len(texts),), SIGNAL, device=self._device)
        prefix = collate_prefix([PrefixTokens(EMPTY)] * len(texts), self.decoder.prompt(latent, signal))
        target = collate_target([self.codec.encode(text, MAX_SCORED) for text in texts])
        log_probability, counts, _ = token_log_probabilities(
            self.decoder, prefix.to(self._device), target.to(self._device), self._output_index
        )
        known = set(pairwise((START, *self.codec.encode(draft).ids, END))) if draft else set()
        pairs = zip(target.ids.tolist(), target.next_ids.tolist(), strict=True)
        fresh = torch.tensor([[pair not in known for pair in zip(*row, strict=True)] for row in pairs])
        new = counts * fresh.to(self._device)
        return [float(mean) for mean in (log_probability * new).sum(dim=1) / new.sum(dim=1).clamp_min(1.0)]

    def _prefix(self, draft: str, before: str) -> PrefixTokens:
        return tokenise_prefix(self.codec, draft, before, MAX_DRAFT)

    def _targets(self, plans: Sequence[_Plan], request: SpanRequest) -> Array:
        """The wanted embedding of every plan, (K, d)."""
        texts = list(dict.fromkeys(plan.base for plan in plans))
        own = dict(zip(texts, self.encoder.encode(texts), strict=True))
        if request.mode == "edit":
            return self._edited([own[plan.base] for plan in plans], request)
        return np.stack([project(own[plan.base], request.guides, plan.margin, self.statistics) for plan in plans])

    def _edited(self, embeddings: Sequence[Array], request: SpanRequest) -> Array:
        """SDEdit (Meng et al. 2022): noise the drafts' embeddings to `strength`, then denoise them under guidance."""
        schedule = CosineSchedule()
        alpha, sigma = schedule.levels(request.strength)
        latent = self.statistics.normalise(np.stack(embeddings))
        noise = np.random.default_rng(request.seed).standard_normal(latent.shape)
        denoiser = guided(gaussian_denoiser(self.statistics), request.guides, self.statistics, scale=8.0)
        start = (alpha * latent + sigma * noise).astype(np.float32)
        return self.statistics.denormalise(ddim(start, denoiser, schedule, EDIT_STEPS, request.strength))

    def _weighty_words(self, request: SpanRequest) -> list[Span]:
        """The words that hold the text on the wrong side: the fewest, worst first, without which it would pass.

        Leave-one-out over words (Li et al. 2016, "Understanding neural networks through representation erasure"): one
        batch for the ranking, one for the choice.
        """
        text, matches = request.text, list(request.matches)
        words = [match.span() for match in _WORD.finditer(text) if not _overlaps(match.span(), matches)]
        away = [guide for guide in request.guides if guide.away]
        if not away or not 2 <= len(words) <= MAX_RANKED:
            return []
        base, *without = self._violation([_cut(text, matches), *(_cut(text, [*matches, word]) for word in words)], away)
        gains = base - np.array(without)
        order = [words[index] for index in np.argsort(-gains) if gains[index] > 0.0][: min(MAX_HIDDEN, len(words) - 1)]
        trials = [order[: count + 1] for count in range(len(order))]
        if not trials:
            return []
        levels = self._violation([_cut(text, [*matches, *trial]) for trial in trials], away)
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


def _plans(request: SpanRequest, words: Sequence[Span], bad: Sequence[Span]) -> list[_Plan]:
    """Lay out the candidates: greedy ones first, over the ways to show the draft and rising margins, then samples.

    The draft is shown whole, with its weighty words hidden, without them, and without its bad clauses.
    """
    near, middle, far, extreme = (margin * request.strength / 0.5 for margin in MARGINS)
    text, matches = request.text, list(request.matches)
    cut = _cut(text, [*matches, *words])
    shown = (_hidden(text, matches), _cut(text, matches))
    hidden = (_hidden(text, [*matches, *words]), cut)
    erased = (cut, cut)
    shorter = _cut(text, [*(span for span in matches if not _overlaps(span, bad)), *bad])
    shorter = shorter[:1].upper() + shorter[1:] if text[:1].isupper() else shorter
    order = [
        *([_Plan(shorter, shorter, near, 0.0)] if bad else []),
        _Plan(*shown, near, 0.0),
        _Plan(*hidden, near, 0.0),
        _Plan(*hidden, far, 0.0),
        _Plan(*shown, far, 0.0),
        _Plan(*erased, near, 0.0),
        _Plan(*hidden, middle, 0.7),
        _Plan(*shown, extreme, 0.0),
        _Plan(*hidden, near, 0.7),
    ]
    margins = (near, middle, far, extreme)
    drafts = (hidden, shown, erased)
    more = range(len(order), request.candidates)
    return [*order, *(_Plan(*drafts[i % 3], margins[i // 3 % 4], 0.8) for i in more)][: request.candidates]


def tidy(text: str, draft: str) -> str:
    """Mend the ends where words were left out: nothing left hanging, capital and full stop as the draft has them."""
    text = text.strip().lstrip(",;:.!?)-").lstrip()
    hanging = _CONJUNCTION.match(text)
    if hanging and not _CONJUNCTION.match(draft):
        text = text[hanging.end() :]
    text = _HANGING.sub(r"\1", text)
    if text and draft[-1:] in _STOPS and text[-1].isalnum():
        text += "."
    return text[:1].upper() + text[1:] if draft[:1].isupper() else text


def _overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(start < span[1] and end > span[0] for start, end in others)


def _cut(text: str, spans: Sequence[Span]) -> str:
    """Return the text without the spans, the white space closed up."""
    return " ".join(_replaced(text, spans, "").split())


def _hidden(text: str, spans: Sequence[Span]) -> str:
    """Return the text with a mark in the place of every span; punctuation at the end of a word stays."""
    return " ".join(_replaced(text, spans, HIDDEN).split())


def _replaced(text: str, spans: Sequence[Span], mark: str) -> str:
    for start, end in sorted(spans, reverse=True):
        word = text[start:end]
        tail = word[len(word.rstrip(".,!?;:")) :] if mark else ""
        text = text[:start] + mark + tail + text[end:]
    return text


@lru_cache(maxsize=4)
def load_pipeline(name: str, encoder: str, device: str) -> Pipeline:
    """Load a checkpoint with its encoder; one per process.

    Raises:
        CheckpointError: missing, damaged, or of another encoder.
    """
    loaded_encoder = load_encoder(encoder, device)
    loaded = checkpoint.load(checkpoint.locate(name), loaded_encoder.sha256, loaded_encoder.device)
    return Pipeline(loaded_encoder, loaded, Codec(word_tokenizer(loaded_encoder.directory)))
