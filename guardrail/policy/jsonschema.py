"""The published JSON Schema of policy *files*, for editors (`policies/policy.schema.json`, `guardrail policy schema`).

A file differs from the resolved document: with `extends` any part may be left to the parent, and `null` removes what is
inherited. So nothing but the name is required here, and everything that can be inherited may be null.
"""

from __future__ import annotations

import json
from typing import Any

from guardrail.policy.resolve import OWN_KEYS
from guardrail.policy.schema import PolicyDocument
from guardrail.types import Action

__all__ = ["json_schema", "schema_text"]

_STRINGS = {"type": "array", "items": {"type": "string"}}
_KINDS = "linear direction pattern trihash pii secrets transformer moderation_api judge".split()
_EXAMPLES = {
    "type": "object",
    "properties": {"positive": _STRINGS, "negative": _STRINGS, "about": {"type": "string"}},
    "required": ["positive", "negative"],
    "additionalProperties": False,
}
_DURATION = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
_CLASSIFIER: dict[str, Any] = {
    "description": "One thing that can be measured. The options depend on `kind`; plug-ins may bring further kinds.",
    "type": "object",
    "properties": {
        "kind": {
            "description": "linear: a trained head; direction: do / don't phrases; pattern: words and regular "
            "expressions; trihash: a head on character trigrams; pii, secrets: personal data and credentials; transformer: "
            "a model of Hugging Face; moderation_api: OpenAI's endpoint or one like it; judge: an LLM, asked if uncertain.",
            "anyOf": [{"enum": _KINDS}, {"type": "string"}],
        },
        "head": {"description": "linear: the shipped head to use. Default: the classifier's name.", "type": "string"},
        "file": {"description": "linear, trihash: a head file (.safetensors) of your own.", "type": "string"},
        "tier": {
            "description": "linear: what gives the score; the tuned network is more accurate and takes longer.",
            "enum": ["linear", "tuned"],
            "default": "linear",
        },
        "words": {
            "description": "pattern: words and phrases, matched whole, in any disguise; a final * stands for any ending.",
            **_STRINGS,
        },
        "regex": {
            "description": "pattern: RE2 regular expressions, matched on lower case without accents.",
            **_STRINGS,
        },
        "lexicon": {
            "description": "pattern: a file with one word or phrase a line; # starts a comment.",
            "type": "string",
        },
        "examples": {
            "description": "linear: 5 to 50 texts on each side that teach a head of your own; a file or in place.",
            "anyOf": [{"type": "string"}, _EXAMPLES],
        },
        "toward": {"description": "direction: phrases that should score high.", **_STRINGS},
        "away": {"description": "direction: phrases that should score low.", **_STRINGS},
        "templates": {"description": "direction: texts with {} where a phrase goes.", **_STRINGS},
        "types": {"description": "pii, secrets: what to look for. Default: all but high_entropy.", **_STRINGS},
        "model": {"description": "transformer: a name or folder; moderation_api, judge: the model.", "type": "string"},
        "label": {
            "description": "transformer: which of the model's labels count.",
            "anyOf": [{"type": "string"}, _STRINGS],
        },
        "url": {"description": "moderation_api: where /moderations stands.", "type": "string"},
        "categories": {"description": "moderation_api: whose scores count. Default: all.", **_STRINGS},
        "when": {"description": "judge: asked only where the rule is uncertain without it.", "const": "uncertain"},
        "margin": {
            "description": "judge: how near a threshold is uncertain, in logits.",
            "type": "number",
            "default": 1.5,
        },
        "rubric": {"description": "judge: what is forbidden. Default: the rules' descriptions.", "type": "string"},
        "timeout": {"description": "moderation_api, judge: seconds, or 500ms, 2s.", **_DURATION},
        "allow": {
            "description": "pattern: a match that begins inside one of these does not count; pii, secrets: texts that do not.",
            **_STRINGS,
        },
        "value": {
            "description": "pattern, pii, secrets: the score of a text with a match (0 without).",
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 1.0,
        },
    },
    "additionalProperties": True,
}


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a policy file."""
    schema = PolicyDocument.model_json_schema()
    schema["$defs"]["ClassifierSpec"] = json.loads(json.dumps(_CLASSIFIER))
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
        part.pop("title", None)
        _loosen(part, top=part is schema)
    names = {"type": "string", "minLength": 1}
    schema["properties"]["extends"] |= {"anyOf": [names, {"type": "array", "items": names}]}
    for key in ("type", "items", "default"):
        schema["properties"]["extends"].pop(key, None)
    schema["$defs"]["Action"] = {"enum": [action.value for action in Action if action is not Action.ALLOW]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "guardrail policy",
        "description": "A community's policy. See docs/policy.md.",
        "required": ["policy"],
    }


def schema_text() -> str:
    """The schema as the file that is shipped."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _loosen(part: dict[str, Any], *, top: bool) -> None:
    """Let every inherited value be null; name keys by pattern without letting others through."""
    for name, value in part.get("properties", {}).items():
        value.pop("title", None)
        _loosen(value, top=False)
        if not (top and name in OWN_KEYS):
            part["properties"][name] = _nullable(value)
    patterns = part.pop("patternProperties", None)
    if patterns:
        ((pattern, value),) = patterns.items()
        part["propertyNames"], part["additionalProperties"] = {"pattern": pattern}, value
    if isinstance(part.get("additionalProperties"), dict):
        part["additionalProperties"] = _nullable(part["additionalProperties"])


def _nullable(value: dict[str, Any]) -> dict[str, Any]:
    if "propertyNames" in value or "anyOf" in value or "$ref" in value or "enum" in value or "type" not in value:
        outer: dict[str, Any] = {key: value[key] for key in ("description", "default") if key in value}
        inner = {key: item for key, item in value.items() if key not in outer}
        options = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
        return {**outer, "anyOf": [*(option for option in options if option != {"type": "null"}), {"type": "null"}]}
    return {**value, "type": [value["type"], "null"]}
