"""Files of examples: what is read, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardrail.errors import PolicyError
from guardrail.policy.corpus import find_corpus, load_corpus
from guardrail.types import Action, Passage, Stage

PASS = {Action.ALLOW, Action.FLAG}


def test_a_case_says_what_is_right(write) -> None:
    corpus = load_corpus(
        write(
            "c.yaml",
            """\
policy: p
cases:
  - {expect: allow, text: a}
  - {expect: pass, text: b, stage: input, context: [x, y]}
  - {expect: [act, flag], text: c, rule: r}
  - {expect: block, text: d, known: true, reason: the head is deaf to irony}
""",
        )
    )
    accepted = [case.accepted for case in corpus.cases]
    assert accepted == [{Action.ALLOW}, PASS, set(Action) - {Action.ALLOW}, {Action.BLOCK}]
    assert corpus.cases[0].passage == Passage("a", Stage.OUTPUT)
    assert corpus.cases[1].passage == Passage("b", Stage.INPUT, ("x", "y"))
    assert (corpus.cases[2].rule, corpus.cases[3].known) == ("r", True)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("{expect: alow, text: a}", "unknown expectation 'alow'; one of pass, act, allow"),
        ("{expect: alow, text: a}", "Did you mean 'allow'?"),
        ("{expect: [], text: a}", "at least one"),
        ("{text: a}", "cases[1].expect: is missing"),
        ("{expect: allow, text: 3}", "cases[1].text: expected text; got 3"),
        ("{expect: allow, text: a, stge: input}", "cases[1].stge: unknown key"),
        ("{expect: allow, text: a, stage: inptu}", "Did you mean 'input'?"),
        ("{expect: allow, text: a, known: true}", "`known: true` needs a `reason`"),
        ("{expect: block, text: first}", "the same text stands in case 1"),
    ],
)
def test_mistakes_have_their_line(write, case: str, words: str) -> None:
    write("c.yaml", f"policy: p\ncases:\n  - {{expect: allow, text: first}}\n  - {case}\n")
    with pytest.raises(PolicyError) as caught:
        load_corpus(Path("c.yaml"))
    assert words in str(caught.value)
    assert (caught.value.file, caught.value.line) == ("c.yaml", 4)


def test_the_same_text_may_stand_at_two_stages(write) -> None:
    write("c.yaml", "policy: p\ncases: [{expect: act, text: a}, {expect: flag, text: a, stage: input}]\n")
    assert len(load_corpus(Path("c.yaml")).cases) == 2


def test_examples_are_found_beside_the_policies(write) -> None:
    mine = write("mine/tests/general.yaml", "policy: general\ncases: [{expect: allow, text: a}]\n")
    assert find_corpus("general", [Path("mine")]) == mine
    shipped = find_corpus("general")
    assert shipped is not None
    assert shipped.parts[-3:] == ("policies", "tests", "general.yaml")
    assert find_corpus("nowhere") is None
