"""What heads cost, on a 40-token text, each as a ratio. Prints one JSON object.

- `thirty_over_one`: the forward pass of the encoder with thirty linear heads on its vector, over the pass with one.
- `policy_thirty_over_one`: a whole check under a policy whose one rule weighs thirty heads, over one that weighs one. The
  heads are random directions with a low bias: only their number matters, and no text comes near a threshold.
- `tuned_over_linear`: a score by the tuned network over one by a linear head. The network's memory of recent texts is
  emptied before each call.

All sides are asked in turns, in one process, and timed by its processor time, which other work does not change. Each ratio
is the median of the ratios of the turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from guardrail.classifiers.linear import LinearClassifier, list_heads, load_head, make_head, write_head
from guardrail.classifiers.tuned import SHIPPED, TunedClassifier, load_tuned
from guardrail.encoder import DEFAULT_ENCODER, Encoder, load_encoder
from guardrail.engine import Guardrail
from guardrail.policy import load_policy
from guardrail.settings import Settings
from guardrail.types import Passage

TEXT = (
    "We have looked at the logs of last night and found that the backup had started twice, which explains why the disk "
    "of the second server was already full early in the morning."
)
WARM_UP = 10


def guard(folder: Path, encoder: Encoder, count: int) -> Guardrail:
    """A guardrail whose policy weighs `count` random heads in one rule."""
    rng = np.random.default_rng(0)
    for number in range(count):
        weight = rng.normal(size=encoder.dim).astype(np.float32)
        write_head(folder / f"h{number}.safetensors", make_head(f"h{number}", weight, -20.0, encoder.sha256))
    heads = "".join(f"  h{number}: {{kind: linear, file: h{number}.safetensors}}\n" for number in range(count))
    weights = ", ".join(f"h{number}: 1" for number in range(count))
    rule = f"rules: {{r: {{weights: {{{weights}}}, thresholds: {{flag: 0.9}}}}}}\n"
    path = folder / f"p{count}.yaml"
    path.write_text(f"policy: p{count}\nclassifiers:\n{heads}{rule}", encoding="utf-8")
    return Guardrail(load_policy(path), settings=Settings())


def sides_of(folder: Path, count: int) -> dict[str, Callable[[], object]]:
    """Name to what is timed under it."""
    encoder = load_encoder(DEFAULT_ENCODER, "cpu")
    names = list_heads()
    pool = np.stack([load_head(names[at % len(names)]).weight for at in range(count)])
    passage = Passage(TEXT)
    linear = LinearClassifier("toxicity", load_head("toxicity"), DEFAULT_ENCODER, "cpu")
    few, many = guard(folder, encoder, 1), guard(folder, encoder, count)
    sides: dict[str, Callable[[], object]] = {
        "one": lambda: encoder.encode([TEXT]) @ pool[:1].T,
        "thirty": lambda: encoder.encode([TEXT]) @ pool.T,
        "policy_one": lambda: few.check(TEXT),
        "policy_thirty": lambda: many.check(TEXT),
        "linear": lambda: linear.score([passage]),
    }
    if SHIPPED.is_file():
        tuned = TunedClassifier("toxicity", "toxicity", load_head("toxicity"), DEFAULT_ENCODER, "cpu")
        network = load_tuned(encoder)

        def fresh() -> object:
            network.forget()
            return tuned.score([passage])

        sides["tuned"] = fresh
    return sides


def times_of(sides: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Side to the milliseconds of processor time of each turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repetitions + WARM_UP):
        for name in sides if turn % 2 else reversed(sides):
            started = time.process_time()
            sides[name]()
            if turn >= WARM_UP:
                times[name].append((time.process_time() - started) * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--heads", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = times_of(sides_of(Path(folder), options.heads), options.repetitions)

    def ratio(over: str, under: str) -> float:
        return round(statistics.median(a / b for a, b in zip(times[over], times[under], strict=True)), 4)

    document = {
        "benchmark": "heads",
        "heads": options.heads,
        "repetitions": options.repetitions,
        "cpu_ms": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "thirty_over_one": ratio("thirty", "one"),
        "policy_thirty_over_one": ratio("policy_thirty", "policy_one"),
        **({"tuned_over_linear": ratio("tuned", "linear")} if "tuned" in times else {}),
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
