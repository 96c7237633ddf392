"""What guidance without a backward pass is worth: control of C_t w at 15 steps over that of the paper's 250 with backward.

Both sides move the same toxic sentences (edits at strength 0.5, and continuations after them) from the same noise on the
shipped network. Prints one JSON object: the ratios of control and of network evaluations, and every row behind them.
`--decode` also writes each proposal out and embeds the text again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from guardrail.classifiers.linear import load_head
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import load_pipeline
from guardrail.evaluate.guides import Task, compare_guides, ways

SENTENCES = Path(__file__).resolve().parents[1] / "training" / "pairs" / "repairs.jsonl"
OURS, REFERENCE, STUDENT = "C_t w, s={:g}", "reference: backward, 250 steps, s={:g}", "student, 4 steps, s={:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--scales", type=float, nargs="+", default=[8.0])
    parser.add_argument("--decode", action="store_true")
    parser.add_argument("--checkpoint", default="mini")
    options = parser.parse_args()
    pipeline = load_pipeline(options.checkpoint, "all-MiniLM-L6-v2", "auto")
    diffusion = pipeline.diffusion
    head = load_head("toxicity")
    guides = (Guide(head.weight, head.bias),)
    with SENTENCES.open(encoding="utf8") as lines:
        sources = [json.loads(line)["source"] for line in lines]
    x = pipeline.encoder.encode(sources)
    toxic = x[x @ head.weight + head.bias > 0.0]
    toxic = toxic[:: max(1, len(toxic) // options.texts)][: options.texts]
    tasks = (
        Task("edit", guides, start=toxic, strength=0.5),
        Task("continue", guides, before=toxic),
    )
    report: dict[str, Any] = {"texts": len(toxic), "ratios": [], "rows": []}
    for task in tasks:
        named = list(ways(diffusion.student is not None, options.scales))
        rows = compare_guides(diffusion, task, named, pipeline if options.decode else None)
        report["rows"] += rows
        found = {row["name"]: row for row in rows}
        for scale in options.scales:
            ours, reference = found[OURS.format(scale)], found[REFERENCE.format(scale)]
            ratio = {"task": task.name, "scale": scale, **_ratios(ours, reference)}
            if diffusion.student is not None:
                student = _ratios(found[STUDENT.format(scale)], ours)
                ratio |= {f"student_{key}": value for key, value in student.items()}
            report["ratios"].append(ratio)
    print(json.dumps(report, indent=1))


def _ratios(row: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    return {
        "control": row["control"] / max(other["control"], 1e-9),
        "evaluations": other["evaluations"] / row["evaluations"],
        "time": other["ms"] / row["ms"],
    }


if __name__ == "__main__":
    main()
