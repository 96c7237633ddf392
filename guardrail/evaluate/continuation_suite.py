"""Continuation, suite: all ways to steer on the same decoder, prompts and judge, and curves of guidance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from guardrail.dglm.guidance import Guide
from guardrail.dglm.propose import STUDENT, ProposalSettings
from guardrail.evaluate.bench import Bench
from guardrail.evaluate.continuation import Continuations, Way, continue_prompts, measure, read_prompts
from guardrail.evaluate.cost import REFERENCE
from guardrail.evaluate.judges import Judge

MARGIN = 2.5
"""Logit that the baseline `projection` moves to."""

SCALES = (0.0, 2.0, 8.0, 32.0, 128.0)
STEPS = (3, 5, 15, 30)


def continuation_suite(
    bench: Bench, limit: int, count: int, *, reference: bool = False, advance: Callable[[str, int], None]
) -> dict[str, Any]:
    """Continue harmless prompts in every way; return settings, figures per system, curves and samples.

    Args:
        limit: prompts. count: continuations of each. reference: also the paper's 250 steps with backward (slow).
        advance: told the name of the system and how many continuations it has written since.
    """
    prompts = read_prompts(bench.data, bench.judge, limit, bench.seed)
    model = bench.language_model
    written: dict[str, Continuations] = {}
    report: dict[str, Any] = {}

    def run(name: str, way: Way, sentiment: Judge | None = None) -> None:
        found = continue_prompts(bench.pipeline, prompts, count, way, bench.seed, lambda done: advance(name, done))
        written[name] = found
        report[name] = measure(found, bench.judge, model, bench.tokenise, sentiment)

    for name, way in _ways(bench, reference):
        run(name, way)
    ratio = written["dglm"].seconds / max(written["unguided"].seconds, 1e-9)
    n = max(2, math.ceil(ratio))
    run(f"best_of_{n}", Way(settings=ProposalSettings(guide="none"), best_of=n, aims=bench.guides))
    sentiment = {}
    for name, guides in _sentiment_ways(bench).items():
        run(name, Way(guides), bench.sentiment_judge)
        sentiment[name] = report.pop(name)
    sentiment["unguided"] = measure(written["unguided"], bench.judge, model, bench.tokenise, bench.sentiment_judge)
    return {
        "prompts": len(prompts),
        "continuations": count,
        "diffusion": "trained network"
        if bench.pipeline.trained
        else "closed form of Gaussian latents, knows no prompt",
        "best_of_n_at_equal_time": n,
        "systems": report,
        "sentiment": sentiment,
        "curve": guidance_curve(bench, prompts, count, advance),
        "samples": [
            {"prompt": prompt, **{name: found.texts[row][0] for name, found in written.items()}}
            for row, prompt in enumerate(prompts[:10])
        ],
    }


def _ways(bench: Bench, reference: bool) -> Iterator[tuple[str, Way]]:
    plain = ProposalSettings(guide="none")
    yield "unguided", Way(settings=plain)
    yield "dglm", Way(bench.guides)
    if bench.pipeline.diffusion.student is not None:
        yield "dglm_student_4", Way(bench.guides, STUDENT)
    if reference and bench.pipeline.trained:
        yield "dglm_reference_250", Way(bench.guides, REFERENCE)
    yield "projection", Way(settings=plain, margin=MARGIN, aims=bench.guides)
    for name, make in bench.token_steers.items():
        yield name, Way(settings=plain, adjust=make)


def _sentiment_ways(bench: Bench) -> dict[str, tuple[Guide, ...]]:
    positive = bench.sentiment_head
    negative = Guide(positive.weight, positive.bias, away=True)
    return {"positive": (positive,), "negative": (negative,), "positive and not toxic": (*bench.guides, positive)}


def guidance_curve(
    bench: Bench, prompts: Sequence[str], count: int, advance: Callable[[str, int], None]
) -> list[dict[str, Any]]:
    """Return figures per guidance scale at 15 steps, and per step count at the default scale, on a quarter of prompts."""
    some = prompts[: max(4, len(prompts) // 4)]
    settings = [ProposalSettings(scale=scale) for scale in SCALES]
    settings += [ProposalSettings(steps=steps) for steps in STEPS if steps != ProposalSettings().steps]
    rows = []
    for own in settings:
        way = Way(bench.guides, own)
        found = continue_prompts(bench.pipeline, some, count, way, bench.seed, lambda done: advance("curve", done))
        figures = measure(found, bench.judge, bench.language_model, bench.tokenise)
        rows.append(
            {
                "scale": own.scale,
                "steps": own.steps,
                **{name: figures[name]["mean"] for name in ("expected_max_toxicity", "mean_toxicity", "perplexity")},
            }
        )
    return rows
