"""How much harm a policy notices, and how much that is harmless it flags with it.

    python training/recipes/over_refusal.py --data ../shared/data --policy general
    python training/recipes/over_refusal.py --data ../shared/data --policy general --stage output

At the stage `input` the harmful texts are requests (Red-Instruct, TrustLLM's misuse, its part of Do-Not-Answer by itself,
MultiJail), the harmless ones requests in the words of harm (Purple Llama's false refusals, OKTest, the contrast prompts of
CoCoNot). At `output` they are rude drafts (ParaDetox, the project's own), and their human rewrites and everyday dialogue.

Test rows alone (of the project's own pairs dev and test), English alone, at most `--limit` of each set, a fixed draw. Whatever
the policy does other than allow counts as flagged. OKTest and Do-Not-Answer were never trained on; of the others the train
split was. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from guardrail.engine import Guardrail
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.policy import LABEL, evaluate_policy
from guardrail.settings import Settings
from guardrail.types import Decision, Passage, Stage

HARMLESS = ("purplellama-frr", "oktest", "coconot")
HARMFUL = ("red-instruct", "trustllm-misuse", "trustllm-misuse-dna", "multijail")
DIALOGUE = ("sgd", "synthetic-persona-chat", "topical-chat", "multiwoz", "self-dialogue")
OWN_PAIRS = Path("training/pairs/repairs.jsonl")

Sets = dict[str, list[str]]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines, compressed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def requests(folder: Path, name: str, harmful: bool) -> list[str]:
    """The English test prompts of a set."""
    return [
        row["text"]
        for row in lines(folder / "labelled" / f"{name}.jsonl.gz")
        if row["split"] == "test"
        and row.get("meta", {}).get("lang", "en") == "en"
        and (row["labels"].get("illicit_request", 0) >= 0.5) is harmful
        and (name != "coconot" or row["meta"].get("category") == "Requests with safety concerns")
    ]


def turns(path: Path) -> list[str]:
    """The turns of the test dialogues, or of all where there are no splits."""
    return [turn["text"] for row in lines(path) if row.get("split", "test") == "test" for turn in row["turns"]]


def texts(data: Path, stage: Stage) -> tuple[Sets, Sets]:
    """Harmless and harmful texts, by set."""
    if stage is Stage.INPUT:
        return (
            {name: requests(data, name, harmful=False) for name in HARMLESS},
            {name: requests(data, name, harmful=True) for name in HARMFUL},
        )
    pairs = [row for row in lines(data / "pairs" / "paradetox.jsonl.gz") if row["split"] == "test"]
    own = [row for row in lines(OWN_PAIRS) if row["split"] != "train" and row["source"] != row["target"]]
    dialogue = [text for name in DIALOGUE for text in turns(data / "dialogue" / f"{name}.jsonl.gz")]
    return (
        {
            "paradetox, rewrites": [row["targets"][0] for row in pairs],
            "own, rewrites": [row["target"] for row in own],
            "dialogue": dialogue,
        },
        {"paradetox, drafts": [row["source"] for row in pairs], "own, drafts": [row["source"] for row in own]},
    )


def drawn(sets: Sets, harmful: bool, limit: int) -> dict[str, list[LabelledText]]:
    """At most `limit` texts of each set, labelled as violations or not."""
    return {
        name: [
            LabelledText(text, {LABEL: float(harmful)}, name)
            for text in random.Random(0).sample(found, min(limit, len(found)))
        ]
        for name, found in sets.items()
    }


class Remembering:
    """Judges every text once, however often it is asked."""

    def __init__(self, guard: Guardrail) -> None:
        self._guard = guard
        self._known: dict[str, Decision] = {}

    def check_many(self, passages: Sequence[Passage]) -> list[Decision]:
        """One decision for each passage, in order."""
        new = [passage for passage in passages if passage.text not in self._known]
        self._known.update(zip((passage.text for passage in new), self._guard.check_many(new), strict=True))
        return [self._known[passage.text] for passage in passages]


def why(guard: Remembering, rows: Sequence[LabelledText], stage: Stage) -> dict[str, int]:
    """Rule to the number of texts on which it fired."""
    decisions = guard.check_many([Passage(row.text, stage) for row in rows])
    fired = Counter(rule for decision in decisions for rule in {reason.rule for reason in decision.reasons})
    return dict(fired.most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--policy", default="general")
    parser.add_argument("--stage", type=Stage, choices=(Stage.INPUT, Stage.OUTPUT), default=Stage.INPUT)
    parser.add_argument("--limit", type=int, default=200, help="texts of each set")
    arguments = parser.parse_args()
    guard, stage = Remembering(Guardrail(arguments.policy, settings=Settings())), arguments.stage
    harmless, harmful = texts(arguments.data, stage)
    document: dict[str, Any] = {"policy": arguments.policy, "stage": stage.value}
    everything: list[LabelledText] = []
    for side, sets in (
        ("harmless", drawn(harmless, False, arguments.limit)),
        ("harmful", drawn(harmful, True, arguments.limit)),
    ):
        document[side] = {}
        for name, rows in sets.items():
            report = evaluate_policy(rows, guard, stage=stage, resamples=0)
            value = report.metrics["recall" if side == "harmful" else "fpr"].value
            document[side][name] = {"n": len(rows), "flagged": value, "rules": why(guard, rows, stage)}
            everything.extend(rows)
    whole = evaluate_policy(everything, guard, stage=stage).as_json()
    for side, metric in (("harmless", "fpr"), ("harmful", "recall")):
        document[f"{side}_flagged"] = {"share": whole[metric], "interval": whole["intervals"][metric]}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
