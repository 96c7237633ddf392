"""`guardrail policy tune` and `guardrail policy diff`, on policies of patterns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail.cli.app import app

POLICY = """
policy: {name}
classifiers:
  mild: {{kind: pattern, words: [heck], value: 0.3}}
  bad: {{kind: pattern, words: [frobnicator], value: 0.8}}
rules:
  language: {{weights: {{mild: 1, bad: 1}}, combine: max, thresholds: {{flag: {flag}, block: 0.95}}}}
"""


@pytest.fixture(autouse=True)
def files() -> None:
    Path("old.yaml").write_text(POLICY.format(name="old", flag=0.2))
    Path("new.yaml").write_text(POLICY.format(name="new", flag=0.5))
    rows = [("what the heck", 0)] * 30 + [("a fine day", 0)] * 570 + [("you frobnicator", 1)] * 40
    texts = [{"text": f"{text} {number}", "labels": {"violation": label}} for number, (text, label) in enumerate(rows)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["policy", *arguments])


def test_a_threshold_is_chosen_for_a_rate_and_printed_as_yaml() -> None:
    done = run("tune", "./old.yaml", "--data", "rows.jsonl", "--fpr", "0.01", "--resamples", "50", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert 0.3 <= found["threshold"]["value"] <= 0.8
    assert (found["before"], found["recall"]["value"], found["fpr"]["value"]) == (0.2, 1.0, 0.0)
    assert f"flag: {found['threshold']['value']:g}" in found["yaml"]
    shown = run("tune", "./old.yaml", "--data", "rows.jsonl", "--cost", "5:1", "--resamples", "50")
    assert shown.exit_code == 0, shown.output
    assert "cost per text" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fpr", "0.001"], "It takes at least 2,995"),
        ([], "either --fpr RATE or --cost"),
        (["--fpr", "0.01", "--cost", "1:1"], "either --fpr RATE or --cost"),
        (["--cost", "cheap"], "two numbers"),
        (["--fpr", "0.01", "--rule", "langauge"], "Did you mean 'language'?"),
        (["--fpr", "0.01", "--label", "violations"], "Did you mean 'violation'?"),
    ],
)
def test_what_the_texts_cannot_support_is_refused(arguments: list[str], message: str) -> None:
    done = run("tune", "./old.yaml", "--data", "rows.jsonl", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_threshold_that_would_be_out_of_order_is_said() -> None:
    done = run("tune", "./old.yaml", "--data", "rows.jsonl", "--fpr", "0.01", "--action", "escalate", "--json")
    assert json.loads(done.stdout)["conflicts"] == []
    Path("low.yaml").write_text(POLICY.format(name="low", flag=0.2).replace("block: 0.95", "block: 0.25"))
    done = run("tune", "./low.yaml", "--data", "rows.jsonl", "--fpr", "0.01", "--json")
    assert "`block` is at 0.25 and is more severe" in json.loads(done.stdout)["conflicts"][0]


def test_texts_that_taught_the_policy_are_not_tuned_or_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardrail.cli.tuning import taught_overlap
    from guardrail.policy import load_policy

    examples = {
        "positive": [f"you frobnicator {n}" for n in range(600, 606)],
        "negative": [f"a day {n}" for n in range(6)],
    }
    Path("taught.yaml").write_text(
        POLICY.format(name="taught", flag=0.2).replace(
            "rules:", f"  head: {{kind: linear, examples: {json.dumps(examples)}}}\nrules:", 1
        )
    )
    assert taught_overlap(load_policy("./taught.yaml"), ["You frobnicator 600!", "new"]) == ["You frobnicator 600!"]


def test_a_diff_names_keys_and_the_texts_that_change() -> None:
    Path("corpus.jsonl").write_text('{"text": "what the heck"}\n{"text": "you frobnicator"}\n{"text": "hello"}\n')
    done = run("diff", "./old.yaml", "./new.yaml", "--corpus", "corpus.jsonl", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["keys"] == [{"key": "rules.language.thresholds.flag", "before": 0.2, "after": 0.5}]
    assert (found["texts"], found["changed"]) == (3, 1)
    assert found["moves"] == [{"before": "flag", "after": "allow", "texts": 1}]
    assert found["changes"][0]["text"] == "what the heck"
    shown = run("diff", "./old.yaml", "./new.yaml", "--corpus", "corpus.jsonl").stdout
    assert "~ rules.language.thresholds.flag: 0.2 -> 0.5" in shown
    assert "line 1: flag (language) -> allow (no rule): what the heck" in shown
    assert "the policies say the same" in run("diff", "./old.yaml", "./old.yaml").stdout
    assert run("diff", "./old.yaml", "./nowhere.yaml").exit_code == 2
