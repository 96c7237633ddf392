"""pydantic's complaints about a hand-written file, in words for the person who wrote it, with file and line."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from guardrail.errors import did_you_mean
from guardrail.yamlfile import Fail, Key, Mark, dotted, find, kind_of

_EXPECTED = {
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "dict_type": "a mapping (`key: value` lines)",
    "model_type": "a mapping (`key: value` lines)",
    "model_attributes_type": "a mapping (`key: value` lines)",
    "list_type": "a list",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
    "too_short": "at least one item",
}
_BOUND = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key that it stands at, and what was expected there. `absent`: the key is not in the file."""

    key: Key
    message: str
    absent: bool = False


def problems(error: ValidationError, model: type[BaseModel], *, hidden: Iterable[Key] = ()) -> list[Problem]:
    """Every mistake that pydantic found, translated. Values at the keys in `hidden` (secrets) are not repeated."""
    found = []
    for item in error.errors(include_url=False):
        key = tuple(part for part in item["loc"] if part != "[key]")
        message = _message(item, model)
        if key in set(hidden):
            message = message.partition("; got")[0]
        found.append(Problem(key, message, absent=item["type"] == "missing"))
    return [one for one in found if not any(_below(other.key, one.key) for other in found)]


def _below(key: Key, other: Key) -> bool:
    """Whether `key` lies inside `other`: pydantic also calls a list too short when an item of it is wrong."""
    return len(key) > len(other) and key[: len(other)] == other


def failure(found: Sequence[Problem], marks: Mapping[Key, Mark], fail: Fail, *, file: str | None = None) -> Exception:
    """One exception for all mistakes: located at the first one, the others listed below it.

    In the order of their lines, but what is absent comes last: often it stands there misspelt, and that is the mistake.
    """
    places = [(find(marks, problem.key), problem) for problem in found]
    places.sort(key=lambda place: (place[1].absent, place[0].line if place[0] else 0))
    first_mark, first = places[0]
    lines = [first.message]
    for mark, problem in places[1:]:
        where = f"{mark.file}:{mark.line}: " if mark else ""
        lines.append(f"{where}{dotted(problem.key)}: {problem.message}")
    return fail(
        "\n".join(lines),
        file=first_mark.file if first_mark else file,
        line=first_mark.line if first_mark else None,
        key=dotted(first.key) or None,
    )


def _message(item: Any, model: type[BaseModel]) -> str:
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "extra_forbidden":
        known = _fields(model, item["loc"][:-1])
        return f"unknown key; expected one of {', '.join(known)}.{did_you_mean(str(item['loc'][-1]), known)}"
    if kind == "missing":
        return "is missing, and it is required"
    if kind in ("enum", "literal_error"):
        known = [word.strip("'\" ") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
        return f"expected one of {', '.join(known)}; got {kind_of(value)}.{did_you_mean(str(value), known)}"
    if kind in _BOUND:
        name, words = _BOUND[kind]
        return f"expected a number {words} {context[name]:g}; got {kind_of(value)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}; got {kind_of(value)}"
    if kind == "value_error":
        return str(context["error"])
    return f"{item['msg'][:1].lower()}{item['msg'][1:]}; got {kind_of(value)}"


def _fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that are known at `path` below `model`, found by walking the annotations."""
    here: Any = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(part)].annotation
        else:
            here = typing.get_args(here)[-1]
        here = _without_none(here)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(annotation) if arg is not type(None))
    return annotation
