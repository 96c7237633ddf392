"""`extends`: merge, removal, several parents, circles; and where a mistake in a merged policy is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardrail.errors import PolicyError
from guardrail.policy import load_policy
from guardrail.policy.resolve import resolve
from guardrail.types import Action

BASE = """\
policy: base
description: The base.
classifiers:
  toxicity: {kind: linear}
  insult: {kind: linear}
rules:
  a:
    stages: [input, output]
    weights: {toxicity: 1.0, insult: 0.5}
    thresholds: {flag: 0.4, block: 0.9}
  b:
    weights: {insult: 1}
    thresholds: {block: 0.9}
rewrite: {order: [dglm, redact]}
"""


def test_maps_merge_and_lists_and_values_replace(load) -> None:
    document = load(
        child="""\
policy: child
extends: base
classifiers:
  toxicity: {head: other}
rules:
  a:
    stages: [output]
    weights: {toxicity: 2.0}
    thresholds: {rewrite: 0.6}
rewrite: {order: [redact], candidates: 4}
""",
        base=BASE,
    ).document
    assert document.policy == "child"
    assert document.extends == ("base",)
    assert document.description == ""
    assert document.classifiers["toxicity"].model_dump() == {"kind": "linear", "head": "other"}
    assert document.rules["a"].weights == {"toxicity": 2.0, "insult": 0.5}
    assert document.rules["a"].thresholds == {Action.FLAG: 0.4, Action.REWRITE: 0.6, Action.BLOCK: 0.9}
    assert [stage.value for stage in document.rules["a"].stages] == ["output"]
    assert document.rules["b"].weights == {"insult": 1.0}
    assert document.rewrite.order == ("redact",)
    assert document.rewrite.candidates == 4


def test_null_removes_what_is_inherited(load) -> None:
    document = load(
        child="policy: c\nextends: base\nrewrite:\nrules:\n  a: {weights: {insult: ~}, thresholds: {flag: ~}}\n  b:\n",
        base=BASE,
    ).document
    assert document.rules["a"].weights == {"toxicity": 1.0}
    assert document.rules["a"].thresholds == {Action.BLOCK: 0.9}
    assert list(document.rules) == ["a"]
    assert document.rewrite.order == ("dglm", "prompted", "redact")


def test_what_was_removed_can_be_given_again(load) -> None:
    document = load(
        c="policy: c\nextends: b2\nrules:\n  b: {weights: {toxicity: 1}, thresholds: {flag: 0.2}}\n",
        b2="policy: b2\nextends: base\nrules: {b: null}\n",
        base=BASE,
    ).document
    assert document.rules["b"].weights == {"toxicity": 1.0}
    assert document.rules["b"].thresholds == {Action.FLAG: 0.2}


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"),
    [
        ("rules:\n  a:\n    thresholds: {blok: null}\n", 5, "rules.a.thresholds.blok", "Did you mean 'block'?"),
        ("rules: {c: null}\n", 3, "rules.c", "no key 'c' is inherited here"),
        ("on_error: null\n", 3, "on_error", "no key 'on_error' is inherited"),
    ],
)
def test_null_that_removes_nothing_is_a_mistake(load, text: str, line: int, key: str, hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(c=f"policy: c\nextends: base\n{text}", base=BASE)
    assert hint in str(caught.value)
    assert (caught.value.file, caught.value.line, caught.value.key) == ("c.yaml", line, key)


def test_null_without_a_parent_is_a_mistake(load) -> None:
    with pytest.raises(PolicyError, match="no key 'guides' is inherited"):
        load(BASE + "guides: null\n")


def test_of_several_parents_later_ones_win(load) -> None:
    document = load(
        c="policy: c\nextends: [one, two]\n",
        one="policy: one\nextends: base\nrules: {a: {thresholds: {block: 0.8, flag: 0.3}}}\n",
        two="policy: two\nextends: base\nrules: {a: {thresholds: {block: 0.7}}}\n",
        base=BASE,
    ).document
    assert document.rules["a"].thresholds == {Action.FLAG: 0.3, Action.BLOCK: 0.7}


def test_a_common_base_does_not_undo_what_a_parent_changed(load) -> None:
    document = load(
        c="policy: c\nextends: [strict, polite]\n",
        strict="policy: strict\nextends: base\nrules: {b: null, a: {thresholds: {block: 0.5}}}\n",
        polite="policy: polite\nextends: base\nrefusal: Sorry.\n",
        base=BASE,
    ).document
    assert list(document.rules) == ["a"]
    assert document.rules["a"].thresholds[Action.BLOCK] == 0.5
    assert document.refusal == "Sorry."


def test_files_stand_in_the_order_in_which_they_apply(write) -> None:
    write("base.yaml", BASE)
    write("one.yaml", "policy: one\nextends: base\n")
    write("two.yaml", "policy: two\nextends: [base, one]\n")
    write("c.yaml", "policy: c\nextends: [two, one]\n")
    assert [path.stem for path in resolve(Path("c.yaml")).files] == ["base", "one", "two", "c"]


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a": "a"}, "a -> a"),
        ({"a": "b", "b": "a"}, "a -> b -> a"),
        ({"a": "b", "b": "c", "c": "b"}, "b -> c -> b"),
        ({"a": "./b.yaml", "b": "[base0, ../x/a.yaml]", "base0": ""}, "a -> b -> a"),
    ],
)
def test_a_circle_is_refused_and_drawn(write, files: dict[str, str], circle: str) -> None:
    for name, parent in files.items():
        write(f"x/{name}.yaml", f"policy: {name}\n" + (f"extends: {parent}\n" if parent else ""))
    with pytest.raises(PolicyError) as caught:
        load_policy("x/a.yaml")
    assert f"extends itself in a circle: {circle}" in str(caught.value)
    assert (caught.value.key, caught.value.line) == ("extends", 2)


def test_a_policy_of_your_own_may_extend_the_shipped_one_of_its_name(write) -> None:
    write("mine/general.yaml", "policy: general\nextends: general\nrefusal: Not here.\n")
    policy = load_policy("general", [Path("mine")])
    assert policy.document.refusal == "Not here."
    assert "harassment" in policy.document.rules
    written = [path.name for path in policy.files if path.suffix == ".yaml"]
    assert written == ["base.yaml", "general.yaml", "general.yaml"]


@pytest.mark.parametrize(
    ("extends", "words", "line"),
    [
        ("bsae", "there is no policy named 'bsae'; known: base, c,", 2),
        ("bsae", "Did you mean 'base'?", 2),
        ("gone/x.yaml", "no such file: gone/x.yaml", 2),
        ("{a: b}", "expected the name of a policy, or a list of names; got a mapping", 2),
        ("[base, 3]", "got 3", 2),
        ("\n  - base\n  - bsae", "no policy named 'bsae'", 4),
    ],
)
def test_a_parent_that_is_not_there_is_named(load, extends: str, words: str, line: int) -> None:
    with pytest.raises(PolicyError) as caught:
        load(c=f"policy: c\nextends: {extends}\n", base=BASE)
    assert words in str(caught.value)
    assert (caught.value.file, caught.value.line, caught.value.key) == ("c.yaml", line, "extends")


def test_a_mistake_is_reported_in_the_file_that_makes_it(load) -> None:
    with pytest.raises(PolicyError) as caught:
        load(c="policy: c\nextends: base\n", base=BASE.replace("insult: 1}", "insult: 0}"))
    assert (caught.value.file, caught.value.line) == ("base.yaml", 12)
    with pytest.raises(PolicyError) as caught:
        load(c="policy: c\nextends: base\nrules:\n  a:\n    thresholds:\n      block: 0.3\n", base=BASE)
    assert (caught.value.file, caught.value.line, caught.value.key) == ("c.yaml", 6, "rules.a.thresholds.block")


def test_removing_a_classifier_that_a_rule_still_weighs_is_a_mistake(load) -> None:
    with pytest.raises(PolicyError) as caught:
        load(c="policy: c\nextends: base\nclassifiers:\n  insult: null\n", base=BASE)
    message = str(caught.value)
    assert "rules.a.weights.insult: 'insult' is not in `classifiers`, which has toxicity." in message
    assert "base.yaml:12: rules.b.weights.insult" in message


def test_a_replaced_list_is_marked_where_it_is_replaced(load) -> None:
    with pytest.raises(PolicyError) as caught:
        load(c="policy: c\nextends: base\nrewrite:\n  order:\n    - redact\n    - nothing\n", base=BASE)
    assert (caught.value.file, caught.value.line, caught.value.key) == ("c.yaml", 6, "rewrite.order[1]")


def test_a_link_that_leads_to_itself_is_refused(write) -> None:
    Path("loop.yaml").symlink_to("loop.yaml")
    write("c.yaml", "policy: c\nextends: ./loop.yaml\n")
    for name in ("c.yaml", "loop.yaml"):
        with pytest.raises(PolicyError, match=r"loop\.yaml"):
            load_policy(name)
