"""Train the trigram head on the wording of requests that stands beside the tuned network in the policy `general`.

    python training/recipes/heads_wording.py --data runs/heads/mixture.jsonl.gz --out policies/heads

The network reads what a request is about, and takes prevention ("how do I avoid ...") and fiction for the deed more often than
their words do; the wording alone takes a topic for harm. They err on different texts, so a rule that weighs both
is right more often than either. Rows are those of `heads_refit.py`, more of each. Writes the head and prints its figures on dev
and test rows: AUROC with its interval, and of each source's harmful rows against all harmless ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from heads_refit import LABEL, drawn

from guardrail.classifiers.trihash import TrihashHead, write_trihash
from guardrail.evaluate.data import LabelledText, read_many
from guardrail.evaluate.metrics import evaluate_scores, quick_auroc
from guardrail.learn.trihash import train_trihash

NAME = "illicit_wording"
MOST = {"train": (1_000, 400), "dev": (150, 60), "test": (150, 60)}
STRENGTH = 100.0


def figures(head: TrihashHead, rows: Sequence[LabelledText]) -> dict[str, Any]:
    """AUROC over all rows, and of the harmful ones of each source against all harmless ones."""
    logits = np.array([head.logit(row.text) for row in rows])
    y = np.array([row.labels[LABEL] >= 0.5 for row in rows])
    sources = np.array([row.source for row in rows])
    auroc = evaluate_scores(1.0 / (1.0 + np.exp(-logits)), y, resamples=500)["auroc"].as_json()
    found: dict[str, Any] = {"rows": len(rows), "positives": int(y.sum()), "auroc": auroc}
    for source in sorted(set(sources[y])):
        part = ~y | (sources == source)
        found[str(source)] = quick_auroc(logits[part], y[part])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the head")
    arguments = parser.parse_args()
    everything = read_many(arguments.data)
    rows = [row for split in ("train", "dev") for row in drawn(everything, split, MOST)]
    head, _ = train_trihash(LABEL, rows, strength=STRENGTH)
    named = TrihashHead(NAME, head.weight, head.bias)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_trihash(arguments.out / f"{NAME}.safetensors", named)
    held = {split: drawn(everything, split, MOST) for split in ("dev", "test")}
    document = {split: figures(named, part) for split, part in held.items()}
    print(json.dumps({"train": len(rows) - len(held["dev"]), "sha256": named.sha256, **document}, indent=2))


if __name__ == "__main__":
    main()
