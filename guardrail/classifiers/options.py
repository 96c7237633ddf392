"""Reading the options of a classifier: each returns a value of its type or says what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from guardrail.errors import ClassifierError

__all__ = ["number", "seconds", "text", "texts", "writable"]

_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m)?\s*")
_UNITS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0}


def text(name: str, options: Mapping[str, Any], option: str, default: str | None = None) -> str:
    """A text that is not empty.

    Raises:
        ClassifierError: it is something else, or missing without a default.
    """
    value = options.get(option, default)
    if not isinstance(value, str) or not value.strip():
        raise ClassifierError(f"classifier {name!r}: {option!r} must be a text, not {value!r}.")
    return value


def texts(name: str, options: Mapping[str, Any], option: str) -> tuple[str, ...]:
    """A list of texts that are not empty; one text is a list of one; nothing is the empty list.

    Raises:
        ClassifierError: it is something else.
    """
    value = options.get(option)
    listed = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(one, str) and one.strip() for one in listed):
        raise ClassifierError(f"classifier {name!r}: {option!r} must be a list of texts, not {value!r}.")
    return tuple(listed)


def number(
    name: str, options: Mapping[str, Any], option: str, default: float, least: float, most: float = math.inf
) -> float:
    """A number from `least` to `most`.

    Raises:
        ClassifierError: it is something else.
    """
    value = options.get(option, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        upper = "" if most == math.inf else f" to {most:g}"
        raise ClassifierError(f"classifier {name!r}: {option!r} must be a number from {least:g}{upper}, not {value!r}.")
    return float(value)


def seconds(name: str, options: Mapping[str, Any], option: str, default: float) -> float:
    """A duration above 0 in seconds, written as a number or as `500ms`, `2s`, `1m`.

    Raises:
        ClassifierError: it is something else.
    """
    value = options.get(option, default)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        value = float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ClassifierError(f"classifier {name!r}: {option!r} must be a duration such as 500ms or 2s, not {value!r}.")
    return float(value)


def writable(source: str) -> str:
    """A text that can be sent as UTF-8: a question mark stands for each lone surrogate."""
    return source.encode("utf-8", "replace").decode("utf-8")
