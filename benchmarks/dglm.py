"""What a DGLM rewrite costs: the whole proposal of 8 candidates over plain sampling of 8 from the same decoder.

Both sides alternate in one process on the same sentences. Prints one JSON object: median milliseconds, their ratio,
the share of each stage, and rewrites per second. Absolute times depend on the machine; the ratio is the claim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from guardrail.classifiers.linear import load_head
from guardrail.dglm.batch import tokenise_prefix
from guardrail.dglm.generate import Decoding, generate
from guardrail.dglm.guidance import Guide, project
from guardrail.dglm.pipeline import SIGNAL, SpanRequest, load_pipeline

SENTENCES = (
    "Only an idiot would restart the Brompton router at 10:45 and expect the logs to survive, you useless clown.",
    "Your pull request is absolute trash, the tests fail on Windows and the cache is never invalidated.",
    "I told that stupid landlord in Leeds twice that the boiler leaks and he still did nothing about it.",
    "What kind of moron deploys to production on a Friday evening without telling anyone on the team?",
)
CANDIDATES = 8


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    pipeline = load_pipeline("mini", "all-MiniLM-L6-v2", "auto")
    head = load_head("toxicity")
    guides = (Guide(head.weight, head.bias),)

    def plain(text: str) -> None:
        """Sample 8 continuations of the same prefix, no guidance."""
        latent = torch.from_numpy(pipeline.statistics.normalise(pipeline.encoder.encode([text])))
        prefix = tokenise_prefix(pipeline.codec, text, "")
        decoding = Decoding([0.8] * CANDIDATES, max_tokens=len(prefix.draft) + 12)
        rows = latent.expand(CANDIDATES, -1)
        signal = torch.full((CANDIDATES,), SIGNAL)
        generate(pipeline.decoder, pipeline.codec, rows, signal, [prefix] * CANDIDATES, decoding)

    def move(text: str) -> None:
        x = pipeline.encoder.encode([text])[0]
        for margin in np.linspace(1.0, 6.0, CANDIDATES):
            project(x, guides, float(margin), pipeline.statistics)

    sides: dict[str, list[float]] = {"rewrite": [], "plain": [], "move": []}
    for repeat in range(repeats + 1):
        for text in SENTENCES:
            request = SpanRequest(text, guides=guides, candidates=CANDIDATES)
            times = {
                "rewrite": milliseconds(lambda request=request: pipeline.rewrite(request)),
                "plain": milliseconds(lambda text=text: plain(text)),
                "move": milliseconds(lambda text=text: move(text)),
            }
            if repeat:  # the first round warms up
                for name, value in times.items():
                    sides[name].append(value)
    medians = {name: statistics.median(values) for name, values in sides.items()}
    print(
        json.dumps(
            {
                "benchmark": "dglm",
                "device": str(pipeline.decoder.word.weight.device),
                "candidates": CANDIDATES,
                "rewrite_ms": round(medians["rewrite"], 1),
                "plain_sampling_ms": round(medians["plain"], 1),
                "ratio": round(medians["rewrite"] / medians["plain"], 3),
                "share_of_moving_the_embedding": round(medians["move"] / medians["rewrite"], 4),
                "rewrites_per_second": round(1000.0 / medians["rewrite"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
