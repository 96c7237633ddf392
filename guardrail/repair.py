"""Repair: change the flagged sentences of a draft, nothing else, and prove that the result passes.

The rewriters of the policy's order are asked one after the other. Each flagged stretch takes its best candidate that
passes
by itself; the whole draft is judged again with all of them in place. A stretch that one rewriter cannot repair falls to
the next. What never passes is not delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from guardrail.errors import GuardrailError
from guardrail.judge import Judge, Verdict, trim
from guardrail.log import Logger
from guardrail.rewrite.base import Rewriter, RewriteRequest, abandoned
from guardrail.rewrite.redact import MARK
from guardrail.rewrite.select import rank
from guardrail.text.segment import fenced_code, sentences
from guardrail.types import Action, Candidate, Passage, Reason, Rewrite, Span

if TYPE_CHECKING:
    from guardrail.dglm.guidance import Guide
    from guardrail.encoder import Encoder

log = Logger(__name__)

CONTEXT_CHARS = 400
ATTEMPTS = 4  # whole-draft combinations tried per rewriter
SHARE = 0.25  # heads of a non-linear pool that contribute at least this much steer


@dataclass(slots=True)
class _Stretch:
    """A flagged stretch of the draft and what has been found for it."""

    span: Span
    code: bool
    ranked: list[Candidate] = field(default_factory=list)  # passing by themselves, best first; text is the replacement
    tried: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Repair:
    """A rewrite that passes, or none, why, and what was tried. `models` maps the rewriters that were used to their hashes."""

    rewrite: Rewrite | None
    note: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    tried: tuple[Candidate, ...] = ()  # all that was proposed, where nothing passed


class Repairer:
    """Repair drafts under one policy.

    Args:
        judge: of the policy. rewriter: name to rewriter, None where it is not configured. encoder: for similarity.
        timeout: seconds per draft; afterwards only redaction is tried.
    """

    def __init__(
        self, judge: Judge, rewriter: Callable[[str], Rewriter | None], encoder: Callable[[], Encoder], timeout: float
    ) -> None:
        self._judge, self._rewriter, self._encoder, self._timeout = judge, rewriter, encoder, timeout
        self._document = judge.bundle.policy.document

    def repair(self, passage: Passage, verdict: Verdict, seed: int) -> Repair:
        """Return the best rewrite of a flagged passage that passes the whole policy."""
        judgement = verdict.judgement
        reasons = [reason for reason in judgement.reasons if reason.action >= Action.REDACT and not reason.error]
        stretches = _stretches(passage.text, reasons)
        order = ("redact",) if judgement.action is Action.REDACT else self._document.rewrite.order
        deadline = time.monotonic() + self._timeout
        models: dict[str, str] = {}
        notes: list[str] = []
        for name in order:
            rewriter = self._rewriter(name)
            if rewriter is None:
                notes.append(f"{name}: not configured")
                continue
            try:
                for round_ in range(rewriter.rounds):
                    self._propose(rewriter, passage, verdict, reasons, stretches, seed, round_, deadline)
            except GuardrailError as error:
                log.warning("rewriter failed", rewriter=name, error=str(error))
                notes.append(f"{name}: {error}")
                continue
            models[name] = rewriter.fingerprint
            rewrite = self._assemble(passage, judgement.risk, stretches, seed)
            if rewrite is not None:
                return Repair(rewrite, "; ".join(notes), models)
            notes.append(f"{name}: no candidate passed")
        tried = tuple(candidate for stretch in stretches for candidate in stretch.tried)
        return Repair(None, "; ".join(notes), models, tried)

    # -- candidates ------------------------------------------------------------------------------------------------

    def _propose(
        self,
        rewriter: Rewriter,
        passage: Passage,
        verdict: Verdict,
        reasons: Sequence[Reason],
        stretches: Sequence[_Stretch],
        seed: int,
        round_: int,
        deadline: float,
    ) -> None:
        """Add the rewriter's passing candidates to every stretch that has none, or whose candidates failed together."""
        redacts = rewriter.name == "redact"
        open_ = [stretch for stretch in stretches if redacts or not (stretch.ranked or stretch.code)]
        if not open_:
            return
        requests = [
            self._request(stretch, passage, verdict, reasons, seed, round_, deadline, redacts) for stretch in open_
        ]
        proposals = rewriter.propose(requests)
        texts = [proposal.text for own in proposals for proposal in own]
        verdicts = iter(self._judge.judge([replace(passage, text=text) for text in texts]))
        for stretch, own in zip(open_, proposals, strict=True):
            source = passage.text[slice(*stretch.span)]
            similarities = self._similarities(source, [proposal.text for proposal in own], redacts)
            found = []
            for proposal, similarity in zip(own, similarities, strict=True):
                judged = next(verdicts).judgement
                close = redacts or (similarity or 0.0) >= self._document.rewrite.min_similarity
                passes = judged.action < Action.REDACT and close
                found.append(
                    Candidate(
                        proposal.text,
                        rewriter.name,
                        judged.risk,
                        passes,
                        similarity,
                        proposal.fluency,
                        scores=judged.scores,
                        seed=seed,
                    )
                )
            ranked = rank(found, source, self._document.preference)
            stretch.tried.extend(ranked)
            passing = [candidate for candidate in ranked if candidate.passes]
            # The redactor's order is least invasive first; that matters more than its utility.
            stretch.ranked.extend(sorted(passing, key=lambda candidate: candidate.text == MARK) if redacts else passing)

    def _request(
        self,
        stretch: _Stretch,
        passage: Passage,
        verdict: Verdict,
        reasons: Sequence[Reason],
        seed: int,
        round_: int,
        deadline: float,
        redacts: bool,
    ) -> RewriteRequest:
        start, end = stretch.span
        gone = abandoned.get()
        inside = [(a, b) for a, b in verdict.matches if a < end and b > start]
        matches = {(a, b): (max(a, start) - start, min(b, end) - start) for a, b in inside}
        before = passage.text[:start] or (passage.context[-1] if passage.context else "")
        return RewriteRequest(
            text=passage.text[start:end],
            before=before[-CONTEXT_CHARS:],
            after=passage.text[end : end + CONTEXT_CHARS],
            matches=tuple(matches.values()),
            labels={matches[span]: label for span, label in verdict.labels.items() if span in matches},
            guides=() if redacts else self._guides(verdict, reasons),
            why=tuple(reason.description or reason.rule for reason in reasons),
            candidates=self._document.rewrite.candidates,
            strength=self._document.rewrite.strength,
            mode=self._document.rewrite.mode,
            seed=seed,
            round=round_,
            cancelled=lambda: time.monotonic() > deadline or gone(),
            forbidden=None if redacts else self._judge.forbidden(passage.stage),
        )

    def _guides(self, verdict: Verdict, reasons: Sequence[Reason]) -> tuple[Guide, ...]:
        """The policy's guides as linear heads: away from violated rules, toward what `guides.toward` names."""
        from guardrail.dglm.guidance import Guide

        bundle, guides = self._judge.bundle, self._document.guides
        found: list[Guide] = []
        for reason in reasons:
            scale = guides.away.get(reason.rule, 1.0) if guides.away else 1.0
            pooled = bundle.linear_guide(reason.rule)
            heads = [pooled] if pooled is not None else []
            if pooled is None:
                heads = [
                    head
                    for name, share in reason.contributions.items()
                    if share >= SHARE and (head := bundle.head(name)) is not None
                ]
            found.extend(Guide(weight, bias, away=True, scale=scale) for weight, bias in heads)
        if found:
            for name, scale in guides.toward.items():
                head = bundle.head(name)
                if head is not None:
                    found.append(Guide(head[0], head[1], away=False, scale=scale))
        return tuple(found)

    def _similarities(self, source: str, texts: Sequence[str], redacts: bool) -> Sequence[float | None]:
        """Cosines to the source. Redaction by patterns alone does not load an encoder for them."""
        if not texts or (redacts and not self._judge.bundle.heads):
            return [None] * len(texts)
        x = self._encoder().encode([source, *texts])
        return [float(value) for value in np.clip(x[1:] @ x[0], -1.0, 1.0)]

    # -- the whole draft -------------------------------------------------------------------------------------------

    def _assemble(
        self, passage: Passage, risk_before: float, stretches: Sequence[_Stretch], seed: int
    ) -> Rewrite | None:
        """Put the candidates in place and judge the whole draft; a few combinations, best first."""
        if any(not stretch.ranked for stretch in stretches):
            return None
        for attempt in range(ATTEMPTS):
            chosen = [stretch.ranked[min(attempt, len(stretch.ranked) - 1)] for stretch in stretches]
            edits = tuple((stretch.span, candidate.text) for stretch, candidate in zip(stretches, chosen, strict=True))
            text = splice(passage.text, edits)
            judged = self._judge.judge([replace(passage, text=text)])[0].judgement
            if judged.action < Action.REDACT:
                methods = list(dict.fromkeys(candidate.method for candidate in chosen))
                return Rewrite(
                    source=passage.text,
                    text=text,
                    method="+".join(methods),
                    similarity=self._similarities(passage.text, [text], methods == ["redact"])[0],
                    risk_before=risk_before,
                    risk_after=judged.risk,
                    candidates=tuple(candidate for stretch in stretches for candidate in stretch.tried),
                    edits=edits,
                    seed=seed,
                )
            if attempt + 1 >= max(len(stretch.ranked) for stretch in stretches):
                break
        for stretch in stretches:  # what passes alone but not together falls to the next rewriter
            stretch.ranked.clear()
        return None


def _stretches(text: str, reasons: Sequence[Reason]) -> list[_Stretch]:
    """The sentences of `text` that a reason points at, trimmed; fenced code is a stretch that no model rewrites."""
    spans = [span for reason in reasons for span in reason.spans]
    code = fenced_code(text)
    found = []
    for sentence in sentences(text):
        start, end = trim(text, sentence)
        if start < end and any(a < end and b > start for a, b in spans):
            found.append(_Stretch((start, end), any(a < end and b > start for a, b in code)))
    return found


def splice(text: str, edits: Sequence[tuple[Span, str]]) -> str:
    """Return `text` with every span replaced; spans do not overlap."""
    for (start, end), replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text
