"""Choose the everyday texts that come with guardrail from the project's own labelled ones. Run from the repository root.

Few-shot heads and directions need to know what most texts are like. The texts are those of `training/heads` that carry
no positive label of a harm, from the training split; the choice is seeded. Writes `guardrail/pretrained/background.txt`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "guardrail" / "pretrained" / "background.txt"
STYLES = {"courtesy"}  # labels that are no harm
SHORTEST, LONGEST = 20, 200  # characters


def main(most: int = 500, seed: int = 0) -> None:
    found: set[str] = set()
    for path in sorted((ROOT / "training" / "heads").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            harmless = not any(value > 0 for label, value in row["labels"].items() if label not in STYLES)
            text = " ".join(row["text"].split())
            if harmless and row["split"] == "train" and SHORTEST <= len(text) <= LONGEST:
                found.add(text)
    chosen = random.Random(seed).sample(sorted(found), min(most, len(found)))
    OUT.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    print(f"{len(chosen)} of {len(found)} texts, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
