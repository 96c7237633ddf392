"""The shipped policies, on the real encoder and heads: every example comes out as its file says."""

from __future__ import annotations

from collections import Counter

import pytest

from guardrail.engine import Guardrail
from guardrail.policy import list_policies, load_policy, shipped_policies
from guardrail.policy.checks import advise
from guardrail.policy.corpus import GROUPS, Corpus, find_corpus, load_corpus
from guardrail.settings import Settings
from guardrail.types import Action, Stage

NAMES = sorted(list_policies())
DELIVERED_AS_IT_IS = GROUPS["pass"]


def examples(name: str) -> Corpus:
    path = find_corpus(name)
    assert path is not None
    return load_corpus(path)


@pytest.mark.parametrize("name", NAMES)
def test_each_extends_base_and_says_whom_it_is_for(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert policy.document.description
    assert name == "base" or policy.document.extends == ("base",)
    assert policy.document.on_error == "block"
    assert policy.document.mode == "enforce"
    assert [p for p in advise(policy.document) if name != "base" or p.key[0] != "classifiers"] == []
    assert all(rule.description for rule in policy.document.rules.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_users_write_is_never_rewritten(name: str) -> None:
    rules = load_policy(name).document.rules_at(Stage.INPUT)
    assert {action for rule in rules.values() for action in rule.thresholds} <= {Action.FLAG, Action.BLOCK}


@pytest.mark.parametrize("name", NAMES)
def test_each_has_enough_examples_of_both_kinds(name: str) -> None:
    corpus = examples(name)
    assert corpus.policy == name
    kinds = Counter(bool(case.accepted & DELIVERED_AS_IT_IS == case.accepted) for case in corpus.cases)
    assert len(corpus.cases) >= 40
    assert min(kinds.values()) >= 12
    assert {case.stage for case in corpus.cases} >= {Stage.INPUT, Stage.OUTPUT}
    rules = set(load_policy(name).document.rules)
    assert {case.rule for case in corpus.cases if case.rule} <= rules


def test_no_corpus_is_left_without_a_policy() -> None:
    assert {path.stem for path in (shipped_policies() / "tests").iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_example_comes_out_as_its_file_says(name: str) -> None:
    cases = examples(name).cases
    decisions = Guardrail(load_policy(name), settings=Settings()).check_many([case.passage for case in cases])
    wrong = []
    for case, decision in zip(cases, decisions, strict=True):
        assert decision.failures == {}
        right = decision.action in case.accepted and case.rule in {None, *(reason.rule for reason in decision.reasons)}
        if not right and not case.known:
            wrong.append((case.text, decision.action.value, {r: round(v, 2) for r, v in decision.rules.items()}))
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_known_failures_stay_few(name: str) -> None:
    cases = examples(name).cases
    assert sum(case.known for case in cases) <= 0.2 * len(cases)
