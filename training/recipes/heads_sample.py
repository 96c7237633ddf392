"""Draw a smaller mixture from a large one, for linear heads in minutes instead of hours.

    python training/recipes/heads_sample.py --data runs/heads/mixture.jsonl.gz --out runs/heads/sample.jsonl.gz
    guardrail heads train --data runs/heads/sample.jsonl.gz --sources runs/heads/sources.yaml --cache runs/heads --out heads

Of every source, split and side (some positive label, or none) a fixed draw; all own texts, and all positives of labels
that few rows carry. A linear head has 385 numbers: past some thousand rows of each side it gains more from another
source than from more rows. Texts are cut to the 320 characters that the tuned tier reads, around what was marked.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from pathlib import Path

from guardrail.evaluate.data import LabelledText, read_many
from guardrail.learn.tuned_data import CAPS, Sampling, draw

CAP = {"train": 250, "dev": 40, "test": 60}
KEEP = {"train": 400, "dev": 60, "test": 60}
OWN = 10_000


def sampled(rows: list[LabelledText], split: str, seed: int) -> list[LabelledText]:
    """The draw of one split."""
    heads = sorted({head for row in rows for head in row.labels})
    caps = {source: min(cap, CAP[split]) for source, cap in CAPS.items()}
    if split == "train":
        caps |= {row.source: OWN for row in rows if row.source.startswith("own-") and row.source != "own-repairs"}
    sampling = Sampling(cap=CAP[split], caps=caps, keep=KEEP[split], swap=0.0, disguise=0.0, seed=seed)
    return draw([row for row in rows if row.split == split], heads, sampling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    everything = read_many([arguments.data])
    counts: Counter[str] = Counter()
    with gzip.open(arguments.out, "wt", encoding="utf-8") as stream:
        for split in CAP:
            for row in sampled(everything, split, arguments.seed):
                record = {"source": row.source, "split": split, "text": row.text, "labels": dict(row.labels)}
                stream.write(json.dumps({**record, "weight": row.weight}) + "\n")
                counts[split] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
