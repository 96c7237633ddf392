"""Loading a policy: what is accepted, and what exactly is said of every mistake."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from guardrail.errors import PolicyError
from guardrail.policy import find_policy, list_policies, load_policy, shipped_policies
from guardrail.types import Action, Stage

SHIPPED = {"base", "general", "teen-gaming", "workplace", "mental-health-support", "developer-community"}


def test_a_minimal_policy_has_every_default(load, minimal) -> None:
    policy = load(minimal)
    document = policy.document
    assert policy.name == document.policy == "p"
    assert policy.revision.startswith("sha256:")
    assert len(policy.revision) == len("sha256:") + 64
    assert policy.files == (Path("p.yaml"),)
    assert policy.directory == Path.cwd()
    rule = document.rules["harassment"]
    assert rule.stages == (Stage.INPUT, Stage.OUTPUT)
    assert rule.combine == "log_pool"
    assert rule.thresholds == {Action.FLAG: 0.4, Action.REWRITE: 0.6, Action.BLOCK: 0.9}
    assert document.rewrite.order == ("dglm", "prompted", "redact")
    assert (document.on_error, document.mode, document.disclose) == ("block", "enforce", "marker")
    assert document.classifiers["toxicity"].kind == "linear"


def test_every_key_of_the_format_is_read(load) -> None:
    document = load(
        """\
policy: full
description: d
supersedes: older
mode: shadow
classifiers:
  toxicity: {kind: linear, head: insult}
  words: {kind: pattern, words: [a, b], value: 0.9}
rules:
  r:
    description: why
    stages: [input, output, tool_call, tool_result, retrieved, conversation]
    weights: {toxicity: 2, words: 0.5}
    combine: noisy_or
    thresholds: {flag: 0.1, redact: 0.2, rewrite: 0.3, escalate: 0.4, block: 0.5}
    on_error: allow
  s: {weights: {words: 1}, thresholds: {block: 0.5}}
guides: {away: {r: 1.0}, toward: {toxicity: 0.3}}
rewrite: {order: [redact], mode: edit, strength: 1, candidates: 3, min_similarity: 0}
preference: {safety: 0, fidelity: 1, brevity: 0}
on_error: flag
disclose: header
marker: " (edited)"
refusal: No.
"""
    ).document
    assert document.classifiers["toxicity"].options == {"head": "insult"}
    assert document.classifiers["words"].options == {"words": ["a", "b"], "value": 0.9}
    assert document.rules["r"].stages == tuple(Stage)
    assert document.on_error_of("r") == "allow"
    assert document.on_error_of("s") == "flag"
    assert list(document.rules_at(Stage.RETRIEVED)) == ["r"]
    assert list(document.rules_at(Stage.OUTPUT)) == ["r", "s"]
    assert document.rewrite.strength == 1.0
    assert (document.marker, document.refusal, document.supersedes) == (" (edited)", "No.", "older")


RULE = "policy: p\nclassifiers:\n  toxicity: {kind: linear}\nrules:\n  r:\n    weights: {toxicity: 1}\n"
LAST = RULE + "    thresholds: {block: 0.5}\n"


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("policy: p\n", 1, "rules", "there are no rules; expected at least one"),
        (LAST.replace("policy: p", "description: d"), 1, "policy", "is missing, and it is required"),
        (LAST.replace("policy: p", "policy: a b"), 1, "policy", "string should match pattern"),
        (LAST + "rulez: {}\n", 8, "rulez", "unknown key; expected one of policy, extends"),
        (LAST + "rulez: {}\n", 8, "rulez", "Did you mean 'rules'?"),
        (RULE + "    treshold: 1\n", 7, "rules.r.treshold", "Did you mean 'thresholds'?"),
        (RULE, 5, "rules.r.thresholds", "is missing, and it is required"),
        (RULE + "    thresholds: {}\n", 7, "rules.r.thresholds", "at least"),
        (RULE + "    thresholds: {blok: 0.5}\n", 7, "rules.r.thresholds.blok", "expected one of allow, flag, redact"),
        (RULE + "    thresholds: {blok: 0.5}\n", 7, "rules.r.thresholds.blok", "Did you mean 'block'?"),
        (RULE + "    thresholds: {allow: 0.5}\n", 7, "rules.r.thresholds.allow", "`allow` needs no threshold"),
        (RULE + "    thresholds: {block: 1}\n", 7, "rules.r.thresholds.block", "expected a number less than 1; got 1"),
        (
            RULE + "    thresholds: {block: 0}\n",
            7,
            "rules.r.thresholds.block",
            "expected a number greater than 0; got 0",
        ),
        (RULE + "    thresholds: {block: .nan}\n", 7, "rules.r.thresholds.block", "expected a number"),
        (RULE + "    thresholds: {block: '0.5'}\n", 7, "rules.r.thresholds.block", "expected a number; got '0.5'"),
        (RULE + "    thresholds: {block: true}\n", 7, "rules.r.thresholds.block", "expected a number; got True"),
        (RULE + "    thresholds: 0.5\n", 7, "rules.r.thresholds", "expected a mapping"),
        (
            RULE + "    thresholds:\n      flag: 0.5\n      rewrite: 0.4\n",
            9,
            "rules.r.thresholds.rewrite",
            "0.4 is out of order: expected at least 0.5, the threshold of `flag`, which is milder",
        ),
        (
            RULE + "    thresholds:\n      block: 0.3\n      redact: 0.6\n      flag: 0.2\n",
            8,
            "rules.r.thresholds.block",
            "0.3 is out of order: expected at least 0.6, the threshold of `redact`",
        ),
        (
            LAST.replace("toxicity: 1", "toxicity: 0"),
            6,
            "rules.r.weights.toxicity",
            "expected a number greater than 0; got 0",
        ),
        (LAST.replace("toxicity: 1", "toxicity: -1"), 6, "rules.r.weights.toxicity", "greater than 0; got -1"),
        (
            LAST.replace("toxicity: 1", "toxicity: .nan"),
            6,
            "rules.r.weights.toxicity",
            "expected a finite number; got nan",
        ),
        (
            LAST.replace("toxicity: 1", "toxicity: .inf"),
            6,
            "rules.r.weights.toxicity",
            "expected a finite number; got inf",
        ),
        (LAST.replace("toxicity: 1", "toxicity: high"), 6, "rules.r.weights.toxicity", "expected a number; got 'high'"),
        (LAST.replace("toxicity: 1", ""), 6, "rules.r.weights", "at least"),
        (
            LAST.replace("weights: {toxicity: 1}", "weights: {toxcity: 1}"),
            6,
            "rules.r.weights.toxcity",
            "'toxcity' is not in `classifiers`, which has toxicity. Did you mean 'toxicity'?",
        ),
        (LAST + "    stages: [inptu]\n", 8, "rules.r.stages[0]", "expected one of input, output"),
        (LAST + "    stages: [inptu]\n", 8, "rules.r.stages[0]", "Did you mean 'input'?"),
        (LAST + "    stages: []\n", 8, "rules.r.stages", "at least"),
        (LAST + "    stages: input\n", 8, "rules.r.stages", "expected a list; got 'input'"),
        (LAST + "    combine: mean\n", 8, "rules.r.combine", "expected one of log_pool, max, noisy_or; got 'mean'"),
        (LAST + "    on_error: ignore\n", 8, "rules.r.on_error", "expected one of block, flag, allow"),
        (
            LAST.replace("{kind: linear}", "{kind: liner}"),
            3,
            "classifiers.toxicity.kind",
            "unknown kind of classifier 'liner'",
        ),
        (LAST.replace("{kind: linear}", "{kind: liner}"), 3, "classifiers.toxicity.kind", "Did you mean 'linear'?"),
        (LAST.replace("{kind: linear}", "{head: x}"), 3, "classifiers.toxicity.kind", "is missing"),
        (LAST.replace("{kind: linear}", "linear"), 3, "classifiers.toxicity", "expected a mapping"),
        (LAST.replace("toxicity: {kind", "'a/b': {kind"), 3, "classifiers.a/b", "string should match pattern"),
        (LAST + "guides:\n  away: {q: 1}\n", 9, "guides.away.q", "'q' is not in `rules`, which has r."),
        (LAST + "guides:\n  toward: {courtsey: 1}\n", 9, "guides.toward.courtsey", "is not in `classifiers`"),
        (LAST + "guides:\n  away: {r: 0}\n", 9, "guides.away.r", "greater than 0"),
        (LAST + "rewrite:\n  order: [dglm, redcat]\n", 9, "rewrite.order[1]", "Did you mean 'redact'?"),
        (LAST + "rewrite:\n  order: [dglm, dglm]\n", 9, "rewrite.order[1]", "'dglm' stands twice"),
        (LAST + "rewrite: {strength: 0}\n", 8, "rewrite.strength", "greater than 0"),
        (LAST + "rewrite: {candidates: 0}\n", 8, "rewrite.candidates", "at least 1"),
        (LAST + "rewrite: {candidates: 2.5}\n", 8, "rewrite.candidates", "expected a whole number; got 2.5"),
        (LAST + "rewrite: {mode: edti}\n", 8, "rewrite.mode", "Did you mean 'edit'?"),
        (LAST + "preference: {safety: 0, fidelity: 0, brevity: 0}\n", 8, "preference", "at least one of"),
        (LAST + "preference: {safety: -1}\n", 8, "preference.safety", "at least 0"),
        (LAST + "on_error: maybe\n", 8, "on_error", "expected one of block, flag, allow"),
        (LAST + "disclose: yes\n", 8, "disclose", "expected one of marker, header, none; got 'yes'"),
        (LAST + "mode: shadwo\n", 8, "mode", "Did you mean 'shadow'?"),
        (LAST + "refusal: ''\n", 8, "refusal", "expected text that is not empty"),
        (LAST + "classifiers: {}\n", 8, "classifiers", "stands twice; it was first given on line 2"),
        (LAST + "rules: [a]\n".replace("rules", "guides"), 8, "guides", "expected a mapping"),
    ],
)
def test_every_mistake_names_file_line_key_and_what_was_expected(
    load, text: str, line: int, key: str, words: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        load(text)
    error = caught.value
    assert words in str(error)
    assert (error.file, error.line, error.key) == ("p.yaml", line, key)
    assert str(error).startswith(f"p.yaml:{line}: {key}: ")


def test_all_mistakes_are_listed_in_one_message(load) -> None:
    with pytest.raises(PolicyError) as caught:
        load(
            RULE.replace("toxicity: 1", "toxicity: 0")
            + "    thresholds: {blok: 0.5}\n    stages: [nowhere]\nextra: 1\n"
        )
    lines = str(caught.value).split("\n")
    assert len(lines) == 4, lines
    assert {line.split(": ")[0] for line in lines} == {"p.yaml:6", "p.yaml:7", "p.yaml:8", "p.yaml:9"}


@pytest.mark.parametrize("content", [b"", b"\0\1\2", b"\xff\xfe\x00", b"- a\n", b"[" * 50_000, b"a: x\n" * 300_000])
def test_a_file_that_is_no_policy_is_refused(content: bytes) -> None:
    path = Path("p.yaml")
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"p\.yaml"):
        load_policy(path)


def test_a_directory_is_refused() -> None:
    Path("p.yaml").mkdir()
    with pytest.raises(PolicyError, match="is a directory"):
        load_policy("p.yaml")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(PolicyError, match=r"here/gone\.yaml: no such file"):
        load_policy("here/gone.yaml")


@pytest.mark.parametrize("name", ["generl", "../../etc/passwd\0", "", "general\0", "a" * 5000])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(PolicyError):
        load_policy(name)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy("generl")
    assert "known: base, developer-community, general" in str(caught.value)
    assert "Did you mean 'general'?" in str(caught.value)


def test_the_shipped_policies_are_found_by_name() -> None:
    assert set(list_policies()) == SHIPPED
    assert find_policy("general") == shipped_policies() / "general.yaml"


def test_the_search_path_comes_before_the_shipped_ones(write, minimal) -> None:
    write("mine/general.yaml", minimal)
    write("mine/other.yml", minimal.replace("policy: p", "policy: other"))
    search = [Path("nowhere"), Path("mine")]
    assert load_policy("general", search).name == "p"
    assert load_policy("other", search).name == "other"
    assert load_policy("general", ()).name == "general"
    assert set(list_policies(search)) == {*SHIPPED, "other"}


def test_a_name_may_be_a_path_as_text(write, minimal) -> None:
    write("mine/p.yaml", minimal)
    assert load_policy("mine/p.yaml").name == "p"
    assert load_policy(Path("mine/p.yaml")).name == "p"


def test_named_files_are_looked_for_beside_the_policy_that_names_them(write) -> None:
    write("base/lexicons/a.txt", "one\n")
    write("base/base.yaml", LAST.replace("{kind: linear}", "{kind: pattern, lexicon: lexicons/a.txt}"))
    write("mine/child.yaml", "policy: child\nextends: ../base/base.yaml\n")
    policy = load_policy("mine/child.yaml")
    lexicon = Path.cwd() / "base" / "lexicons" / "a.txt"
    assert Path(policy.document.classifiers["toxicity"].options["lexicon"]).resolve() == lexicon
    assert [path.name for path in policy.files] == ["base.yaml", "child.yaml", "a.txt"]
    assert policy.directory == Path.cwd() / "mine"


@pytest.mark.parametrize(
    ("name", "words"), [("gone.txt", "cannot read"), (".", "expected a file"), ("a\\0b", "cannot read")]
)
def test_a_named_file_that_cannot_be_read_is_refused(load, name: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(LAST.replace("{kind: linear}", '{kind: pattern, lexicon: "' + name + '"}'))
    assert words in str(caught.value)
    assert (caught.value.line, caught.value.key) == (3, "classifiers.toxicity.lexicon")


def test_a_policy_points_at_its_own_keys(load, minimal) -> None:
    error = load(minimal).error("what", "classifiers", "insult", "head")
    assert str(error) == "p.yaml:4: classifiers.insult.head: what"


def test_a_policy_can_be_copied(load, minimal) -> None:
    policy = load(minimal)
    again = copy.deepcopy(policy)
    assert again == policy
    assert str(again.error("what", "rules")) == str(policy.error("what", "rules"))
