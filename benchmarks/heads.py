"""Thirty linear heads over one, and a tuned score over a linear one, on a 40-token text. Prints one JSON object.

All sides run in turns, in one process, each with the forward pass of the encoder that it needs. `tuned` is a text that
the network has not seen; its memory of recent texts is emptied before each call.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from guardrail.classifiers.linear import LinearClassifier, list_heads, load_head
from guardrail.classifiers.tuned import SHIPPED, TunedClassifier, load_tuned
from guardrail.encoder import DEFAULT_ENCODER, load_encoder
from guardrail.types import Passage

TEXT = (
    "We have looked at the logs of last night and found that the backup had started twice, which explains why the disk "
    "of the second server was already full early in the morning."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400)
    options = parser.parse_args()
    encoder = load_encoder(DEFAULT_ENCODER, "cpu")
    names = list_heads()
    pool = np.stack([load_head(names[at % len(names)]).weight for at in range(30)])
    passage = Passage(TEXT)
    linear = LinearClassifier("toxicity", load_head("toxicity"), DEFAULT_ENCODER, "cpu")
    sides: dict[str, Callable[[], object]] = {
        "one head": lambda: encoder.encode([TEXT]) @ pool[:1].T,
        "thirty heads": lambda: encoder.encode([TEXT]) @ pool.T,
        "linear": lambda: linear.score([passage]),
    }
    if SHIPPED.is_file():
        tuned = TunedClassifier("toxicity", "toxicity", load_head("toxicity"), DEFAULT_ENCODER, "cpu")
        network = load_tuned(encoder)

        def fresh() -> object:
            network.forget()
            return tuned.score([passage])

        sides["tuned"] = fresh
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.repetitions + 20):
        for name in sides if turn % 2 else reversed(sides):
            started = time.perf_counter()
            sides[name]()
            if turn >= 20:
                times[name].append((time.perf_counter() - started) * 1000)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = {"thirty_over_one": median["thirty heads"] / median["one head"]}
    if "tuned" in median:
        ratios["tuned_over_linear"] = median["tuned"] / median["linear"]
    document = {
        "benchmark": "heads",
        "repetitions": options.repetitions,
        "tokens": encoder.token_counts([TEXT])[0],
        "milliseconds": {name: round(value, 3) for name, value in median.items()},
        **{name: round(value, 4) for name, value in ratios.items()},
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
