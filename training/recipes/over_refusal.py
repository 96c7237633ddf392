"""How many harmful requests a policy notices, and how many harmless ones in the words of harm it flags with them.

    python training/recipes/over_refusal.py --data ../shared/data/labelled --policy general

Test rows alone, English alone, at most `--limit` of each set, a fixed draw. Harmless are Purple Llama's false refusals, OKTest
and the contrast prompts of CoCoNot; harmful are Red-Instruct, TrustLLM's misuse (its part of Do-Not-Answer by itself) and
MultiJail. Every prompt is checked as input; whatever the policy does other than allow counts as flagged. OKTest and
Do-Not-Answer were never trained on; of the others the train split was.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guardrail.engine import Guardrail
from guardrail.evaluate.data import LabelledText, read_labelled
from guardrail.evaluate.policy import LABEL, evaluate_policy
from guardrail.settings import Settings
from guardrail.types import Passage, Stage

HARMLESS = ("purplellama-frr", "oktest", "coconot")
HARMFUL = ("red-instruct", "trustllm-misuse", "trustllm-misuse-dna", "multijail")


def prompts(folder: Path, name: str, harmful: bool, limit: int) -> list[LabelledText]:
    """At most `limit` English test prompts of a set, labelled as violations or not."""
    rows = [
        row
        for row in read_labelled(folder / f"{name}.jsonl.gz")
        if row.split == "test"
        and row.meta.get("lang", "en") == "en"
        and (row.labels.get("illicit_request", 0) >= 0.5) is harmful
        and (name != "coconot" or row.meta.get("category") == "Requests with safety concerns")
    ]
    random.Random(0).shuffle(rows)
    return [replace(row, labels={LABEL: float(harmful)}, source=name) for row in rows[:limit]]


def why(guard: Guardrail, rows: Sequence[LabelledText]) -> dict[str, int]:
    """Rule to the number of prompts on which it fired."""
    decisions = guard.check_many([Passage(row.text, Stage.INPUT) for row in rows])
    return dict(
        Counter(rule for decision in decisions for rule in {reason.rule for reason in decision.reasons}).most_common()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/labelled"))
    parser.add_argument("--policy", default="general")
    parser.add_argument("--limit", type=int, default=200, help="prompts of each set")
    arguments = parser.parse_args()
    guard = Guardrail(arguments.policy, settings=Settings())
    sides = {
        harmful: {name: prompts(arguments.data, name, harmful, arguments.limit) for name in names}
        for harmful, names in ((False, HARMLESS), (True, HARMFUL))
    }
    document: dict[str, Any] = {"policy": arguments.policy, "sets": {}}
    for harmful, sets in sides.items():
        for name, rows in sets.items():
            report = evaluate_policy(rows, guard, stage=Stage.INPUT, resamples=0)
            value = report.metrics["recall" if harmful else "fpr"].value
            side = "harmful" if harmful else "harmless"
            document["sets"][f"{name} ({side})"] = {"n": len(rows), "flagged": value, "rules": why(guard, rows)}
    everything = [row for sets in sides.values() for rows in sets.values() for row in rows]
    whole = evaluate_policy(everything, guard, stage=Stage.INPUT).as_json()
    document |= {"harmless_flagged": whole["fpr"], "harmful_flagged": whole["recall"]}
    document["intervals"] = {
        "harmless_flagged": whole["intervals"]["fpr"],
        "harmful_flagged": whole["intervals"]["recall"],
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
