"""What a proposal and a rewrite cost, by sampler, steps and number of candidates: network evaluations and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from guardrail.dglm.guidance import Guide
from guardrail.dglm.plans import SpanRequest
from guardrail.dglm.propose import STUDENT, ProposalSettings

if TYPE_CHECKING:
    from guardrail.dglm.pipeline import Pipeline

REFERENCE = ProposalSettings(sampler="ddpm", steps=250, guide="backward", scale=50.0)
"""The paper's: 250 ancestral steps, each with a backward pass."""


def settings_to_measure(trained: bool, student: bool) -> Iterator[tuple[str, ProposalSettings]]:
    """Yield named settings: samplers at rising steps, and where there is a network the paper's and the student's."""
    for sampler in ("dpmpp_2m", "ddim", "pndm"):
        for steps in (5, 15, 30):
            yield f"{sampler} {steps}", ProposalSettings(sampler=sampler, steps=steps)
    yield "dpmpp_2m 15, unguided", ProposalSettings(guide="none")
    if trained:
        yield "reference: ddpm 250, backward", REFERENCE
    if student:
        yield "student 4", STUDENT


def proposal_costs(
    pipeline: Pipeline,
    guides: Sequence[Guide],
    counts: Sequence[int] = (1, 8),
    repeats: int = 3,
    advance: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Return `{"settings", "k", "evaluations_per_proposal", "ms", "ms_per_proposal"}` rows; medians of `repeats`."""
    diffusion = pipeline.diffusion
    before = pipeline.encoder.encode(["Did you read what they wrote about the new bridge?"])[0]
    rows = []
    for name, settings in settings_to_measure(diffusion.network is not None, diffusion.student is not None):
        slow = settings.steps > 100
        for count in counts:
            found = [
                diffusion.propose(count, guides, before=before, seed=seed, settings=settings)
                for seed in range(1 if slow else repeats)
            ]
            milliseconds = 1000.0 * statistics.median(proposals.seconds for proposals in found)
            rows.append(
                {
                    "settings": name,
                    "k": count,
                    "evaluations_per_proposal": found[0].evaluations,
                    "ms": round(milliseconds, 2),
                    "ms_per_proposal": round(milliseconds / count, 3),
                }
            )
            advance()
    return rows


def rewrite_costs(
    pipeline: Pipeline,
    guides: Sequence[Guide],
    texts: Sequence[str],
    counts: Sequence[int] = (1, 4, 8, 16),
    advance: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Return `{"mode", "k", "ms", "proposals"}` rows: medians over the texts, and distinct proposals on average.

    Modes that the checkpoint has no network for are left out.
    """
    modes = ("project", "edit", "continue") if pipeline.trained else ("project", "edit")
    pipeline.rewrite(SpanRequest(texts[0], guides=tuple(guides)))  # warm
    rows = []
    for mode in modes:
        request = SpanRequest("", "I have told you twice.", guides=tuple(guides), mode=mode)
        for count in counts:
            times, distinct = [], 0
            for text in texts:
                started = time.perf_counter()
                distinct += len(pipeline.rewrite(replace(request, text=text, candidates=count)))
                times.append(1000.0 * (time.perf_counter() - started))
            ms = round(statistics.median(times), 1)
            rows.append({"mode": mode, "k": count, "ms": ms, "proposals": distinct / len(texts)})
            advance()
    return rows
