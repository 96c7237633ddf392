"""A policy measured on rows labelled `violation`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail.cli.eval import app
from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.policy import evaluate_policy
from guardrail.types import Action, Decision, Passage, Stage, State

CLI = CliRunner()
POLICY = """\
policy: words
description: Word list only.
classifiers:
  words: {kind: pattern, words: [blorp]}
rules:
  words:
    stages: [input, output]
    weights: {words: 1.0}
    combine: max
    thresholds: {block: 0.5}
"""


class Words:
    """Blocks what says "bad", flags what says "odd", cannot judge "?"."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.contexts: list[tuple[str, ...]] = []

    def check_many(self, passages: Sequence[Passage]) -> list[Decision]:
        self.batches.append(len(passages))
        self.contexts += [passage.context for passage in passages]
        return [self._decision(passage) for passage in passages]

    def _decision(self, passage: Passage) -> Decision:
        action, state = Action.ALLOW, State.ALLOWED
        if "bad" in passage.text:
            action, state = Action.BLOCK, State.BLOCKED
        if "odd" in passage.text:
            action, state = Action.FLAG, State.FLAGGED
        if passage.text == "?":
            action, state = Action.ALLOW, State.BLOCKED_UNAVAILABLE
        return Decision("1", action, state, 0.0, passage.stage, "words", "sha256:0", None, passage.text)


def labelled(text: str, violation: float | None) -> LabelledText:
    return LabelledText(text, {} if violation is None else {"violation": violation}, "s", context=("before",))


ROWS = [
    *[labelled("bad", 1.0)] * 6,
    *[labelled("fine", 1.0)] * 2,
    labelled("bad", 0.0),
    *[labelled("odd", 0.0)] * 2,
    *[labelled("fine", 0.0)] * 97,
    labelled("fine", 0.5),
    labelled("fine", None),
]


def test_counts_and_rates() -> None:
    guard = Words()
    found = evaluate_policy(ROWS, guard, stage=Stage.INPUT, resamples=200).as_json()
    assert found["confusion"] == {"true_positives": 6, "false_positives": 3, "false_negatives": 2, "true_negatives": 97}
    assert (found["n"], found["positives"], found["failures"]) == (108, 8, 0)
    assert found["precision"] == pytest.approx(6 / 9)
    assert found["recall"] == pytest.approx(6 / 8)
    assert found["f1"] == pytest.approx(12 / 17)
    assert found["fpr"] == pytest.approx(0.03)
    for metric in ("precision", "recall", "f1", "fpr"):
        low, high = found["intervals"][metric]
        assert 0 <= low < found[metric] < high <= 1
    assert guard.batches == [64, 44]
    assert set(guard.contexts) == {("before",)}


def test_the_mildest_action_is_a_choice() -> None:
    found = evaluate_policy(ROWS, Words(), at=Action.BLOCK, resamples=0).as_json()
    assert found["confusion"]["false_positives"] == 1
    assert found["intervals"]["fpr"] is None


def test_what_cannot_be_judged_is_withheld_and_counted() -> None:
    found = evaluate_policy([labelled("?", 0.0), labelled("bad", 1.0)], Words(), resamples=0)
    assert found.failures == 1
    assert found.confusion["false_positives"] == 1


def test_metrics_without_rows_have_a_reason() -> None:
    found = evaluate_policy([labelled("fine", 0.0)], Words(), resamples=5).metrics
    assert (found["precision"].value, found["precision"].reason) == (None, "nothing was flagged")
    assert (found["recall"].value, found["recall"].reason) == (None, "no row is a violation")
    assert found["fpr"].value == 0.0
    with pytest.raises(DataError, match="no row has the label 'violation'"):
        evaluate_policy([labelled("fine", None)], Words())


def test_the_command_measures_a_policy_file(tmp_path: Path) -> None:
    policy, data = tmp_path / "words.yaml", tmp_path / "rows.jsonl"
    policy.write_text(POLICY)
    rows = [{"text": f"a blorp {n}", "labels": {"violation": 1}} for n in range(5)]
    rows += [{"text": f"a flower {n}", "labels": {"violation": 0}} for n in range(5)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["policy", "--policy", str(policy), "--data", str(data), "--resamples", "20"]
    found = CLI.invoke(app, [*arguments, "--json"])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert (document["precision"], document["recall"], document["f1"], document["fpr"]) == (1.0, 1.0, 1.0, 0.0)
    assert document["policy"]["name"] == "words"
    table = CLI.invoke(app, arguments)
    assert "precision" in table.stdout
    data.write_text('{"text": "x", "labels": {"violation": "yes"}}\n')
    broken = CLI.invoke(app, arguments)
    assert broken.exit_code == 2
    assert "rows.jsonl:1: labels.violation: expected a number" in " ".join(broken.stderr.split())
