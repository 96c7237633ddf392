"""The examples of a policy: texts with what should become of them, run by `guardrail policy test`.

policy: general
cases:
  - {expect: allow, text: "How do I boil an egg?"}
  - {expect: act, text: "...", rule: harassment}
  - {expect: block, stage: input, text: "...", known: true, reason: "the head misses irony"}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from guardrail.errors import PolicyError, did_you_mean
from guardrail.policy.resolve import shipped_policies
from guardrail.types import Action, Passage, Stage
from guardrail.validation import Problem, failure, problems
from guardrail.yamlfile import read_yaml

__all__ = ["Case", "Corpus", "find_corpus", "load_corpus"]

GROUPS: dict[str, frozenset[Action]] = {
    "pass": frozenset({Action.ALLOW, Action.FLAG}),  # the reader sees the text as it was written
    "act": frozenset({Action.REDACT, Action.REWRITE, Action.ESCALATE, Action.BLOCK}),  # the reader does not
    **{action.value: frozenset({action}) for action in Action},
}


class Case(BaseModel):
    """One example.

    Attributes:
        text: the text to judge.
        expect: what is right: an action, `pass` (allow or flag), `act` (anything else), or a list of these.
        stage: where the text stands.
        context: earlier turns, oldest first.
        rule: a rule that has to be among the reasons.
        known: the policy is known to fail here; `reason` says why. Counted, but no error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    expect: Annotated[tuple[str, ...], Field(min_length=1)]
    stage: Stage = Stage.OUTPUT
    context: tuple[str, ...] = ()
    rule: str | None = None
    known: bool = False
    reason: str = ""

    @field_validator("expect", mode="before")
    @classmethod
    def _one_word_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("expect")
    @classmethod
    def _known_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if word not in GROUPS:
                raise ValueError(
                    f"unknown expectation {word!r}; one of {', '.join(GROUPS)}.{did_you_mean(word, GROUPS)}"
                )
        return value

    @property
    def accepted(self) -> frozenset[Action]:
        """The actions that are right."""
        return frozenset().union(*(GROUPS[word] for word in self.expect))

    @property
    def passage(self) -> Passage:
        """The text as the engine takes it."""
        return Passage(text=self.text, stage=self.stage, context=self.context)


class Corpus(BaseModel):
    """The examples of one policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    description: str = ""
    cases: Annotated[tuple[Case, ...], Field(min_length=1)]


def find_corpus(policy: str, search: Sequence[Path] = ()) -> Path | None:
    """`tests/<policy>.yaml` in the first folder of the search path that has it; the shipped folder comes last."""
    for folder in (*search, shipped_policies()):
        path = folder / "tests" / f"{policy}.yaml"
        if path.is_file():
            return path
    return None


def load_corpus(path: Path) -> Corpus:
    """Read and check one file of examples.

    Raises:
        PolicyError: names file, line, key and what was expected; two cases with the same text, stage and context.
    """
    read = read_yaml(path, PolicyError)
    try:
        corpus = Corpus.model_validate(read.data)
    except ValidationError as error:
        raise failure(problems(error, Corpus), read.marks, PolicyError, file=str(path)) from None
    mistakes = _mistakes(corpus)
    if mistakes:
        raise failure(mistakes, read.marks, PolicyError, file=str(path))
    return corpus


def _mistakes(corpus: Corpus) -> list[Problem]:
    found: list[Problem] = []
    first: dict[Passage, int] = {}
    for position, case in enumerate(corpus.cases):
        key = ("cases", position)
        if case.known and not case.reason:
            found.append(Problem(key, "`known: true` needs a `reason`"))
        if case.passage in first:
            found.append(Problem(key, f"the same text stands in case {first[case.passage] + 1}"))
        first.setdefault(case.passage, position)
    return found
