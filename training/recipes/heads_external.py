"""Measure the shipped heads on sets that no head was ever trained on, and add the figures to their summary.

    python training/recipes/heads_external.py --data ../shared/data/labelled --heads guardrail/pretrained/heads

Most of these sets may be used for measuring only. `unintended-bias-madlibs` is a bias test: half of the sentences about
every group of people are toxic, by template, so a fair head ranks them equally well whatever the group.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.classifiers.linear import read_head
from guardrail.encoder import Encoder, load_encoder
from guardrail.evaluate.data import LabelledText, labels_of, read_labelled
from guardrail.evaluate.heads import evaluate_heads, head_probabilities
from guardrail.evaluate.metrics import quick_auroc
from guardrail.policy.bundle import LinearHead

SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # name: files, heads
    "tweeteval-offensive": (("tweeteval-offensive",), ("toxicity",)),
    "toxicr": (("toxicr",), ("toxicity",)),
    "unintended-bias-wiki": (("unintended-bias-wiki",), ("toxicity",)),
    "tweeteval-hate": (("tweeteval-hate",), ("identity_hate",)),
    "cad": (("cad",), ("identity_hate",)),
    "ethos": (("ethos",), ("identity_hate", "violence")),
    "email-politeness": (("email-politeness",), ("courtesy",)),
    "tensor-trust and oktest": (("tensor-trust", "oktest"), ("prompt_injection",)),
}
BIAS = "unintended-bias-madlibs"


def test_rows(folder: Path, files: Sequence[str], limit: int) -> list[LabelledText]:
    rows = [row for name in files for row in read_labelled(folder / f"{name}.jsonl.gz") if row.split == "test"]
    random.Random(0).shuffle(rows)
    return rows[:limit]


def external(folder: Path, heads: dict[str, LinearHead], encoder: Encoder, limit: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for title, (files, names) in SETS.items():
        rows = test_rows(folder, files, limit)
        reports = evaluate_heads(rows, {name: heads[name] for name in names}, encoder)
        for name in names:
            found.setdefault(name, {})[title] = reports[name].as_json()
    return found


def identity_bias(folder: Path, head: LinearHead, encoder: Encoder, limit: int) -> dict[str, Any]:
    """AUROC inside each group's sentences, and the share flagged at 0.5 of its harmless ones."""
    rows = test_rows(folder, (BIAS,), limit)
    scores = head_probabilities(rows, {head.name: head}, encoder)[head.name]
    toxic = labels_of(rows, "toxicity") > 0.5
    members: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        members[str(row.meta["identity"])].append(number)
    aurocs = {name: quick_auroc(scores[of], toxic[of]) for name, of in members.items() if len(of) >= 50}
    flagged = {
        name: float((scores[of][~toxic[of]] >= 0.5).mean()) for name, of in members.items() if (~toxic[of]).sum() >= 25
    }
    values = np.array([value for value in aurocs.values() if value is not None])
    return {
        "rows": len(rows),
        "auroc": quick_auroc(scores, toxic),
        "groups": len(values),
        "group_auroc": {
            "lowest": float(values.min()),
            "median": float(np.median(values)),
            "highest": float(values.max()),
        },
        "flagged_harmless": {
            "median": float(np.median(list(flagged.values()))),
            "worst": dict(sorted(flagged.items(), key=lambda item: -item[1])[:5]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/labelled"))
    parser.add_argument("--heads", type=Path, default=Path("guardrail/pretrained/heads"))
    parser.add_argument("--limit", type=int, default=1_500, help="test rows of each set")
    arguments = parser.parse_args()
    heads = {path.stem: read_head(path) for path in sorted(arguments.heads.glob("*.safetensors"))}
    encoder = load_encoder()
    summary = arguments.heads / "metrics.json"
    document = json.loads(summary.read_text(encoding="utf-8"))
    document["never_trained_on"] = external(arguments.data, heads, encoder, arguments.limit)
    document["identity_bias"] = identity_bias(arguments.data, heads["toxicity"], encoder, 4 * arguments.limit)
    summary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: document[key] for key in ("never_trained_on", "identity_bias")}, indent=2))


if __name__ == "__main__":
    main()
