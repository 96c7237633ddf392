"""Train a tuned network on for a while with the project's own texts and the requests foremost, and the rest replayed.

    python training/recipes/heads_focus.py --data runs/heads/mixture.jsonl.gz --work runs/focus \\
        --start guardrail/pretrained/tuned/heads.safetensors --out runs/focus/heads.safetensors --seconds 1500
    python training/recipes/heads_average.py --network guardrail/pretrained/tuned/heads.safetensors \\
        --onto runs/focus/heads.safetensors --share 0.5 --out averaged.safetensors ...

For texts that were added after a long training, where a whole run again would take hours: they are learned from whole,
beside a part of the other own texts, of requests and of prompts, and a random draw of everything else, so that nothing
is forgotten (experience replay, Rolnick et al., NeurIPS 2019). What comes out is not calibrated: `heads_average.py` does that.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from guardrail.classifiers.tuned import load_tuned, write_tuned
from guardrail.encoder import load_encoder
from guardrail.evaluate.data import LabelledText, read_many
from guardrail.learn.tuned import FROZEN, TunedTraining, TunePlan
from guardrail.learn.tuned_data import Sampling, rows_to_learn

FRESH = (
    "own-illicit_requests",
    "own-implicit_hate",
    "own-things",
    "own-courtesy_plain",
    "own-borderline_requests",
)
REQUESTS = ("coconot", "purplellama-frr", "red-instruct", "trustllm-misuse", "multijail")
PROMPTS = ("benign-prompts", "oasst-model-eval", "t0-open", "jailbreak", "gpteacher-roleplay")
EACH = {**dict.fromkeys(REQUESTS, 220), **dict.fromkeys(PROMPTS, 100)}
OWN_EACH = 50


def focused(rows: Sequence[LabelledText], replay: int, seed: int, fresh: Sequence[str] = FRESH) -> list[LabelledText]:
    """The training rows of `fresh` sources, a part of the other own texts, of requests and prompts, and `replay` others.

    A cap holds for each source and side, harmful requests and others.
    """
    strata: dict[tuple[str, bool], list[LabelledText]] = defaultdict(list)
    for row in rows:
        if row.split == "train":
            strata[row.source, row.labels.get("illicit_request", 0) >= 0.5].append(row)
    rng = random.Random(seed)
    kept: list[LabelledText] = []
    others: list[LabelledText] = []
    for (source, _), members in sorted(strata.items()):
        rng.shuffle(members)
        if source in fresh:
            kept.extend(members)
        elif source in EACH or (source.startswith("own-") and source != "own-repairs"):
            kept.extend(members[: EACH.get(source, OWN_EACH)])
        else:
            others.extend(members)
    return [*kept, *rng.sample(others, min(replay, len(others)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--replay", type=int, default=1_500, help="rows of other sources")
    parser.add_argument("--rate", type=float, default=1e-4, help="peak learning rate of the layers")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after so long; the same command goes on"
    )
    parser.add_argument("--fresh", nargs="+", default=FRESH, help="sources that are learned from whole")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    encoder = load_encoder(device="cpu")
    facts = load_tuned(encoder, arguments.start).facts
    chosen = focused(read_many([arguments.data]), arguments.replay, arguments.seed, arguments.fresh)
    whole = Sampling().caps | dict.fromkeys(arguments.fresh, len(chosen))
    rows = rows_to_learn(chosen, facts.heads, Sampling(caps=whole, seed=arguments.seed))
    plan = TunePlan(seed=arguments.seed, rate=arguments.rate, output_rate=arguments.rate, average=0.97)
    training = TunedTraining(rows, facts.heads, encoder, arguments.work, plan, start=arguments.start)
    deadline = time.monotonic() + arguments.seconds
    progress = training.run(deadline, lambda now: print(now.step, now.steps, round(now.loss, 4), flush=True))
    notes = {**facts.notes, "focused": f"{len(rows)} rows, {progress.step} of {progress.steps} steps: heads_focus.py"}
    sha256 = write_tuned(arguments.out, training.averaged(), facts.heads, FROZEN, encoder.sha256, notes)
    print(json.dumps({"rows": len(rows), "steps": [progress.step, progress.steps], "sha256": sha256}))


if __name__ == "__main__":
    main()
