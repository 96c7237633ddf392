"""The published JSON Schema says what the loader says, about files (which may leave things to a parent)."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from guardrail.policy import list_policies, load_policy, shipped_policies
from guardrail.policy.jsonschema import json_schema, schema_text

SHIPPED = sorted(list_policies())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_shipped_schema_is_the_generated_one() -> None:
    shipped = (shipped_policies() / "policy.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(), "write it anew: guardrail policy schema > policies/policy.schema.json"
    assert json.loads(shipped) == json_schema()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_fit_it_and_tell_editors_where_it_is(name: str, validator) -> None:
    path = shipped_policies() / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    first = text.split("\n", 1)[0]
    assert first == "# yaml-language-server: $schema=policy.schema.json"
    assert (path.parent / first.rpartition("=")[2]).is_file()
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_resolved_policies_fit_it_too(name: str, validator) -> None:
    plain = load_policy(name).document.model_dump(mode="json", exclude_none=True)
    assert [error.message for error in validator.iter_errors(json.loads(json.dumps(plain)))] == []


@pytest.mark.parametrize(
    "document",
    [
        {"policy": "p"},
        {"policy": "p", "extends": ["a", "b"], "rules": {"r": {"thresholds": {"flag": None, "block": 0.5}}, "s": None}},
        {"policy": "p", "classifiers": {"c": {"kind": "somebody-elses", "option": 3}, "d": {"head": "x"}}},
        {"policy": "p", "rewrite": None, "guides": {"away": {"r": 1}, "toward": None}},
    ],
)
def test_a_file_may_leave_things_to_its_parent(document: dict[str, Any], validator) -> None:
    assert [error.message for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"policy": "a b"},
        {"policy": "p", "rulez": {}},
        {"policy": None},
        {"policy": "p", "extends": None},
        {"policy": "p", "extends": [""]},
        {"policy": "p", "rules": {"r": {"thresholds": {"allow": 0.5}}}},
        {"policy": "p", "rules": {"r": {"thresholds": {"block": 1}}}},
        {"policy": "p", "rules": {"r": {"thresholds": {"blok": 0.5}}}},
        {"policy": "p", "rules": {"r": {"weights": {"toxicity": 0}}}},
        {"policy": "p", "rules": {"r": {"stages": ["inptu"]}}},
        {"policy": "p", "rules": {"r": {"stages": []}}},
        {"policy": "p", "rules": {"r": {"combine": "mean"}}},
        {"policy": "p", "rules": {"a/b": {}}},
        {"policy": "p", "rewrite": {"candidates": 0}},
        {"policy": "p", "disclose": True},
        {"policy": "p", "on_error": "maybe"},
    ],
)
def test_mistakes_show_in_the_editor(document: dict[str, Any], validator) -> None:
    assert list(validator.iter_errors(document))
