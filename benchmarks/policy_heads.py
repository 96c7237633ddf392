"""What thirty linear heads cost beside one in a whole check: the same text under two policies, as a ratio.

Prints one JSON object. Both policies have one rule, which weighs all their heads; both are asked in turns, in one
process. The heads are random directions with a low bias: only their number matters, and no text comes near a threshold.
`heads.py` measures the matrix product alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from guardrail.classifiers.linear import make_head, write_head
from guardrail.encoder import load_encoder
from guardrail.engine import Guardrail
from guardrail.policy import load_policy
from guardrail.settings import Settings

TEXT = (
    "We have looked at the logs of last night and found that the backup had started twice, which explains why the "
    "disk of the second server was already full early in the morning."
)


def guard(folder: Path, count: int) -> Guardrail:
    encoder = load_encoder(device="cpu")
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


def milliseconds(one: Guardrail) -> float:
    started = time.process_time()  # of this process alone: the difference is small, and other work is not
    one.check(TEXT)
    return (time.process_time() - started) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--heads", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides = {count: guard(Path(folder), count) for count in (1, options.heads)}
        times: dict[int, list[float]] = {count: [] for count in sides}
        for turn in range(options.repetitions + 5):
            for count in sides if turn % 2 else reversed(sides):
                taken = milliseconds(sides[count])
                if turn >= 5:
                    times[count].append(taken)
    pairs = [many / one for one, many in zip(times[1], times[options.heads], strict=True)]
    medians = {str(count): round(statistics.median(values), 3) for count, values in times.items()}
    print(
        json.dumps(
            {
                "benchmark": "policy_heads",
                "heads": options.heads,
                "ratio": round(statistics.median(pairs), 4),
                "ratio_of_medians": round(medians[str(options.heads)] / medians["1"], 4),
                "check_cpu_ms": medians,
            }
        )
    )


if __name__ == "__main__":
    main()
