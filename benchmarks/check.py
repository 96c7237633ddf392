"""One warm `check` of a 40-token text over the bare encoder on the same text, as a ratio. Prints one JSON object.

Both run in turns, in one process, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from guardrail.encoder import load_encoder
from guardrail.engine import Guardrail
from guardrail.settings import Settings

TEXT = (
    "Thank you for the detailed report. We have looked at the logs of last night and found that the backup had started "
    "twice, which explains why the disk was full in the morning."
)
TOKENS = 40


def milliseconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return (time.perf_counter() - started) * 1000


def measure(policy: str, repetitions: int) -> dict[str, object]:
    settings = Settings()
    encoder = load_encoder(settings.encoder, settings.device)
    guard = Guardrail(policy, settings=settings)
    (tokens,) = encoder.token_counts([TEXT])
    if not TOKENS - 4 <= tokens <= TOKENS + 4:
        raise SystemExit(f"the text has {tokens} tokens, not about {TOKENS}")
    sides: dict[str, Callable[[], object]] = {
        "encoder": lambda: encoder.encode([TEXT]),
        "check": lambda: guard.check(TEXT),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for warm_up in (True, False):
        for turn in range(20 if warm_up else repetitions):
            order = list(sides) if turn % 2 else list(reversed(sides))
            for name in order:
                times[name].append(milliseconds(sides[name]))
        if warm_up:
            times = {name: [] for name in sides}
    median = {name: statistics.median(values) for name, values in times.items()}
    pairs = [check / bare for check, bare in zip(times["check"], times["encoder"], strict=True)]
    quartiles = statistics.quantiles(pairs, n=4)
    return {
        "benchmark": "check",
        "policy": policy,
        "tokens": tokens,
        "repetitions": repetitions,
        "action": guard.check(TEXT).action.value,
        "encoder_ms": round(median["encoder"], 3),
        "check_ms": round(median["check"], 3),
        "ratio": round(median["check"] / median["encoder"], 3),
        "ratio_of_pairs": {
            "q25": round(quartiles[0], 3),
            "median": round(quartiles[1], 3),
            "q75": round(quartiles[2], 3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="general")
    parser.add_argument("--repetitions", type=int, default=400)
    options = parser.parse_args()
    print(json.dumps(measure(options.policy, options.repetitions)))


if __name__ == "__main__":
    main()
