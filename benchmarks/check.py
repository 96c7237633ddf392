"""One warm `check` of a 40-token text over the bare encoder on the same text, as a ratio. Prints one JSON object.

Both run in turns, in one process, so that whatever else the machine does falls on both alike. Each sentence is judged
by itself, so a text of two sentences costs two short forward passes in one batch; `ratio` is that of one sentence.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from guardrail.encoder import Encoder, load_encoder
from guardrail.engine import Guardrail
from guardrail.settings import Settings

TEXTS = {
    "one sentence": (
        "We have looked at the logs of last night and found that the backup had started twice, which explains why the "
        "disk of the second server was already full early in the morning."
    ),
    "two sentences": (
        "Thank you for the detailed report. We have looked at the logs of last night and found that the backup had "
        "started twice, which explains why the disk was full in the morning."
    ),
}
TOKENS = 40


def milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1000


def measure(guard: Guardrail, encoder: Encoder, text: str, repetitions: int) -> dict[str, object]:
    (tokens,) = encoder.token_counts([text])
    if not TOKENS - 4 <= tokens <= TOKENS + 4:
        raise SystemExit(f"the text has {tokens} tokens, not about {TOKENS}")
    sides: dict[str, Callable[[], object]] = {
        "encoder": lambda: encoder.encode([text]),
        "check": lambda: guard.check(text),
    }
    for turn in range(20):
        sides["check" if turn % 2 else "encoder"]()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repetitions):
        for name in sides if turn % 2 else reversed(sides):
            times[name].append(milliseconds(sides[name]))
    median = {name: statistics.median(values) for name, values in times.items()}
    pairs = [check / bare for check, bare in zip(times["check"], times["encoder"], strict=True)]
    lower, middle, upper = (round(value, 3) for value in statistics.quantiles(pairs, n=4))
    return {
        "tokens": tokens,
        "action": guard.check(text).action.value,
        "encoder_ms": round(median["encoder"], 3),
        "check_ms": round(median["check"], 3),
        "ratio": round(median["check"] / median["encoder"], 3),
        "ratio_of_pairs": {"q25": lower, "median": middle, "q75": upper},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="general")
    parser.add_argument("--repetitions", type=int, default=400)
    options = parser.parse_args()
    settings = Settings()
    encoder = load_encoder(settings.encoder, settings.device)
    guard = Guardrail(options.policy, settings=settings)
    found = {name: measure(guard, encoder, text, options.repetitions) for name, text in TEXTS.items()}
    first = found["one sentence"]["ratio"]
    print(
        json.dumps(
            {
                "benchmark": "check",
                "policy": options.policy,
                "repetitions": options.repetitions,
                "ratio": first,
                "texts": found,
            }
        )
    )


if __name__ == "__main__":
    main()
