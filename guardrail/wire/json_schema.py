"""Which strings of a structured answer may be repaired without breaking the caller's JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.wire.documents import Path

__all__ = ["is_free_text"]

_TIED = frozenset({"enum", "const", "pattern", "format", "maxLength", "minLength", "contentEncoding"})
_BRANCHES = ("anyOf", "oneOf", "allOf")
_DEEPEST = 64  # references followed before a schema counts as circular


def is_free_text(schema: Mapping[str, Any] | None, path: Path) -> bool:
    """Whether the string at `path` may become any other string.

    True without a schema. False where any schema that applies ties the string to values, a pattern, a format or a
    length, or where the schema cannot be followed that far.
    """
    if schema is None:
        return True
    found = _at(schema, schema, path, _DEEPEST)
    return bool(found) and not any(_TIED & node.keys() for node in found)


def _at(node: Any, root: Mapping[str, Any], path: Path, depth: int) -> list[Mapping[str, Any]]:
    """All schemas that apply at `path`, references and branches followed."""
    if not isinstance(node, Mapping) or depth <= 0:
        return []
    reference = node.get("$ref")
    if isinstance(reference, str):
        return _at(_resolved(root, reference), root, path, depth - 1)
    inner: list[Mapping[str, Any]] = []
    for branch in _BRANCHES:
        for option in node.get(branch) or ():
            inner += _at(option, root, path, depth - 1)
    if not path:
        return [node, *inner]
    step = path[0]
    if isinstance(step, int):
        child = node.get("items")
    else:
        child = (node.get("properties") or {}).get(step, node.get("additionalProperties"))
    return inner + _at(child, root, path[1:], depth)


def _resolved(root: Mapping[str, Any], reference: str) -> Any:
    """What `#/$defs/Name` stands for; None if it is elsewhere or absent."""
    if not reference.startswith("#"):
        return None
    node: Any = root
    for step in reference.lstrip("#/").split("/") if reference != "#" else ():
        node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node
