"""`guardrail policy ...`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from guardrail.cli.policy import app
from guardrail.policy import load_policy
from guardrail.policy.jsonschema import json_schema

WORDS = """\
policy: words
classifiers:
  rude: {kind: pattern, words: [rude]}
  worse: {kind: pattern, words: [worse]}
rules:
  manners: {weights: {rude: 1}, thresholds: {flag: 0.5}}
  no-worse: {weights: {worse: 1}, thresholds: {block: 0.5}}
"""


@pytest.fixture
def run(write):
    def _run(*arguments: str, **files: str) -> Result:
        for name, text in files.items():
            write(f"policies/{name.replace('__', '/')}.yaml", text)
        return CliRunner().invoke(app, list(arguments))

    return _run


def test_schema_prints_the_schema(run) -> None:
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schema()


@pytest.mark.parametrize("name", ["child", "teen-gaming"])
def test_what_show_prints_is_a_policy_of_the_same_revision(run, write, name: str) -> None:
    result = run("show", name, child="policy: child\nextends: general\nrefusal: No, no.\n")
    assert result.exit_code == 0
    policy = load_policy(name, [Path("policies")])
    assert result.stdout.split("\n")[: len(policy.files) + 1] == [
        f"# revision {policy.revision}",
        *(f"# {path}" for path in policy.files),
    ]
    assert load_policy(write("again.yaml", result.stdout)).revision == policy.revision


def test_show_as_json(run) -> None:
    report = json.loads(run("show", "words", "--json", words=WORDS).stdout)
    assert report["policy"] == "words"
    assert report["revision"] == load_policy("words", [Path("policies")]).revision
    assert report["files"] == ["policies/words.yaml"]
    assert report["extends"] == []
    assert report["document"]["rules"]["manners"]["thresholds"] == {"flag": 0.5}


def test_show_of_what_is_not_there(run) -> None:
    result = run("show", "generl")
    assert result.exit_code == 2
    assert "Did you mean 'general'?" in result.stderr
    assert result.stdout == ""


def test_validate_says_what_is_wrong_and_where(run) -> None:
    broken = WORDS.replace("{rude: 1}", "{rud: 1}")
    result = run("validate", "words", "broken", "--json", words=WORDS, broken=broken)
    assert result.exit_code == 2
    good, bad = json.loads(result.stdout)
    assert good["valid"] is True
    assert good["revision"].startswith("sha256:")
    assert good["errors"] == good["advice"] == []
    assert bad["valid"] is False
    assert bad["errors"][0] | {"message": ""} == {
        "message": "",
        "file": "policies/broken.yaml",
        "line": 6,
        "key": "rules.manners.weights.rud",
    }
    assert "Did you mean 'rude'?" in bad["errors"][0]["message"]


def test_validate_for_people(run) -> None:
    result = run("validate", "words", words=WORDS)
    assert result.exit_code == 0
    assert result.stdout.startswith("ok       words  sha256:")
    result = run("validate", "words", words=WORDS.replace("flag: 0.5", "flag: 5"))
    assert result.exit_code == 2
    assert "policies/words.yaml:6: rules.manners.thresholds.flag: expected a number less than 1; got 5" in result.stdout


def test_validate_finds_what_only_shows_when_classifiers_are_built(run) -> None:
    result = run("validate", "words", words=WORDS.replace("words: [rude]", "wrods: [rude]"))
    assert result.exit_code == 2
    assert "policies/words.yaml:3" in result.stdout
    result = run("validate", "p", p=WORDS.replace("{kind: pattern, words: [rude]}", "{kind: linear, head: nothing}"))
    assert result.exit_code == 2
    assert "policies/p.yaml:3" in result.stdout


def test_validate_gives_advice_on_what_is_odd(run) -> None:
    result = run(
        "validate",
        "words",
        "--json",
        words=WORDS + "  spare: {kind: pattern, words: [x]}\n".replace("  spare", "guides: {}\n#"),
    )
    assert json.loads(result.stdout)[0]["advice"] == []
    odd = WORDS.replace("rules:\n", "  spare: {kind: pattern, words: [x]}\nrules:\n").replace(
        "{worse: 1}", "{worse: 3}, combine: max"
    )
    result = run("validate", "words", "--json", words=odd)
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["advice"] == [
        "policies/words.yaml:5: classifiers.spare: is weighed by no rule and steers nothing",
        "policies/words.yaml:8: rules.no-worse.weights.worse: `max` treats a weight above 1 as 1",
    ]


CASES = """\
policy: words
cases:
  - {expect: allow, text: kind}
  - {expect: pass, text: rude, rule: manners}
  - {expect: act, text: worse, stage: input}
"""


def test_the_examples_of_a_policy_are_run(run) -> None:
    result = run("test", "words", words=WORDS, tests__words=CASES)
    assert (result.exit_code, result.stdout) == (0, "words: 3/3 right, 0 wrong, 0 known\n")


def test_a_wrong_example_fails(run) -> None:
    wrong = CASES + "  - {expect: block, text: rude words}\n  - {expect: allow, text: this is rude, stage: input}\n"
    wrong += "  - {expect: block, text: worse still, rule: manners}\n"
    result = run("test", "words", words=WORDS, tests__words=wrong)
    assert result.exit_code == 1
    assert "words: 3/6 right, 3 wrong, 0 known" in result.stdout
    assert "WRONG: expected block, got flag (manners 1.00) at output: rude words" in result.stdout
    assert "WRONG: expected block by manners, got block (no-worse 1.00)" in result.stdout


def test_known_failures_are_shown_and_counted(run) -> None:
    known = CASES + "  - {expect: block, text: rude, stage: input, known: true, reason: too mild}\n"
    known += "  - {expect: block, text: worse, known: true, reason: was once missed}\n"
    result = run("test", "words", "--json", words=WORDS, tests__words=known)
    assert result.exit_code == 0
    (report,) = json.loads(result.stdout)
    assert (report["cases"], report["right"], report["failed"]) == (5, 4, [])
    assert [(case["text"], case["action"], case["reason"]) for case in report["known"]] == [
        ("rude", "flag", "too mild")
    ]
    assert [case["text"] for case in report["mended"]] == ["worse"]


def test_examples_may_stand_elsewhere(run, write) -> None:
    path = write("else.yaml", CASES)
    assert run("test", "words", "--cases", str(path), words=WORDS).exit_code == 0
    assert run("test", "--cases", str(path)).exit_code == 2
    result = run("test", "words")
    assert result.exit_code == 2
    assert "has no examples: write tests/words.yaml beside it" in result.stderr
