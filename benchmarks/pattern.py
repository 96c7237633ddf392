"""Scan time of the `pattern` classifier over a naive regular expression and litellm's content filter, as ratios.

Prints one JSON object. All sides look for the same words in the same clean text of 40 tokens, in turns, in one process;
`naive` is one case-insensitive alternation of Python's `re`, `litellm` is `ContentFilterGuardrail` (null where it is
too slow or cannot be imported). Neither finds a disguised word (see obfuscation.py); the classifier's time includes
undoing disguises: `disguised` is its time on a text that needs it. Microseconds, median.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import string
import time
from collections.abc import Callable
from pathlib import Path

from guardrail.classifiers.base import BuildContext
from guardrail.classifiers.pattern import build
from guardrail.types import Passage

TEXT = (
    "Thank you for the detailed report. We have looked at the logs of last night and found that the backup had started "
    "twice, which explains why the disk was full in the morning."
)
DISGUISED = "Th\u200bank you f0r the detai1ed rep0rt, y0u st*pid i d i o t, sooooo he1pful. " + TEXT[35:]


def invented(count: int) -> list[str]:
    """Words that stand in no text."""
    rng = random.Random(0)  # noqa: S311 - seeded, to be repeatable
    return ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(6, 11))) + "qx" for _ in range(count)]


def litellm_filter(words: list[str]) -> Callable[[str], object] | None:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        from litellm.proxy.guardrails.guardrail_hooks.litellm_content_filter.content_filter import (
            ContentFilterGuardrail,
        )
        from litellm.types.guardrails import BlockedWord, ContentFilterAction
    except ImportError:
        return None
    blocked = [BlockedWord(keyword=word, action=ContentFilterAction.MASK) for word in words]
    guard = ContentFilterGuardrail(guardrail_name="words", blocked_words=blocked)
    filtered: Callable[[str], object] = guard._filter_single_text
    return filtered


def microseconds(function: Callable[[], object], loops: int) -> float:
    started = time.perf_counter()
    for _ in range(loops):
        function()
    return (time.perf_counter() - started) / loops * 1e6


def measure(count: int, rounds: int) -> dict[str, float | None]:
    words = invented(count)
    started = time.perf_counter()
    classifier = build("words", {"words": words}, BuildContext("", "cpu", Path(), Path()))
    built = time.perf_counter() - started
    naive = re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)
    peer = litellm_filter(words) if count <= 2000 else None  # slower than a minute beyond that
    clean, disguised = [Passage(TEXT)], [Passage(DISGUISED)]
    if classifier.score(clean)[0].value or naive.search(TEXT):
        raise SystemExit("the clean text is not clean")
    sides: dict[str, tuple[Callable[[], object], int]] = {
        "pattern": (lambda: classifier.score(clean), 200),
        "disguised": (lambda: classifier.score(disguised), 50),
        "naive": (lambda: naive.search(TEXT), max(1, 4000 // count)),
    }
    if peer is not None:
        sides["litellm"] = (lambda: peer(TEXT), max(1, 1000 // count))
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (function, loops) in sides.items():
            samples[side].append(microseconds(function, loops))
    times = {side: round(statistics.median(values), 2) for side, values in samples.items()}
    return {
        **times,
        "naive_over_pattern": round(times["naive"] / times["pattern"], 2),
        "litellm_over_pattern": round(times["litellm"] / times["pattern"], 2) if peer is not None else None,
        "build_seconds": round(built, 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--words", type=int, nargs="+", default=[200, 2000, 20_000], help="sizes of the lexicon")
    options = parser.parse_args()
    print(json.dumps({str(count): measure(count, options.rounds) for count in options.words}, indent=1))
