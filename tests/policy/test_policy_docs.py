"""docs/policy.md: every example loads, every key of the format stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from guardrail.policy import load_policy
from guardrail.policy.corpus import load_corpus
from guardrail.policy.schema import Guides, Hold, PolicyDocument, RewriteSpec, Rule
from guardrail.settings import Settings, load_settings

DOCS = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("text", [block for block in BLOCKS if "cases:" not in block])
def test_the_policies_load(text: str, load) -> None:
    assert load(text).document.rules


@pytest.mark.parametrize("text", [block for block in BLOCKS if "cases:" in block])
def test_the_examples_load(text: str, write) -> None:
    assert len(load_corpus(write("c.yaml", text)).cases) == 4


def test_the_first_example_does_what_its_comments_say(load) -> None:
    document, base = load(BLOCKS[0]).document, load_policy("base").document
    assert set(document.rules) == {*base.rules, "harassment"} - {"self-harm"}
    before = {**base.rules["threats"].thresholds}
    assert document.rules["threats"].thresholds == {**before, "flag": 0.5}


@pytest.mark.parametrize(
    ("prefix", "model"),
    [("", PolicyDocument), ("rules.*.", Rule), ("guides.", Guides), ("rewrite.", RewriteSpec), ("hold.", Hold)],
)
def test_every_key_stands_in_the_table(prefix: str, model: type[BaseModel]) -> None:
    missing = [
        name
        for name in model.model_fields
        if f"`{prefix}{name}`" not in DOCS and name not in {"guides", "hold", "rewrite"}
    ]
    assert missing == []


def test_the_variables_that_it_names_exist() -> None:
    names = set(re.findall(r"GUARDRAIL_[A-Z_]+", DOCS)) - {"GUARDRAIL_SETTINGS"}
    assert len(names) >= 4
    values = {
        "GUARDRAIL_STREAM_MAX_CHARS": "300",
        "GUARDRAIL_COMMUNITIES": "teens=teen-gaming,devs=developer-community",
    }
    settings = load_settings(environ={name: values.get(name, "x") for name in names})
    assert isinstance(settings, Settings)
    assert settings.policy_for("devs") == "developer-community"
