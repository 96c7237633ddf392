"""Places in a parsed JSON document: read, write, remove, and find its texts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from guardrail.errors import ModerationError

__all__ = ["Path", "as_mapping", "discard", "get", "parse", "put", "string_leaves"]

Path = tuple[str | int, ...]


def parse(text: str | bytes, what: str) -> Any:
    """Parse JSON; `what` names the document in the error.

    Raises:
        ModerationError: not JSON, not UTF-8, or nested too deep to be read.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModerationError(
            f"{what} is not JSON that can be read ({type(error).__name__}: {error}), so it could not be judged and was "
            "not passed on."
        ) from None


def as_mapping(value: Any, what: str) -> dict[str, Any]:
    """`value` if it is a JSON object.

    Raises:
        ModerationError: it is something else.
    """
    if not isinstance(value, dict):
        raise ModerationError(f"{what} is a JSON {type(value).__name__}, not an object, so it could not be judged.")
    return value


def get(document: Any, path: Path) -> Any:
    """The value at `path`. KeyError or IndexError where there is none."""
    for step in path:
        document = document[step]
    return document


def put(document: Any, path: Path, value: Any) -> None:
    """Set the value at `path`, which exists already or is a new key of an object."""
    get(document, path[:-1])[path[-1]] = value


def discard(document: Any, paths: Iterable[Path]) -> None:
    """Remove the values at `paths`; later items of a list first, so that the earlier paths stay right."""
    for path in sorted(set(paths), key=lambda path: [(isinstance(step, int), step) for step in path], reverse=True):
        del get(document, path[:-1])[path[-1]]


def string_leaves(value: Any, skip: Collection[str] = (), base: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every non-empty string in `value` with its path, in document order; the values of keys in `skip` are left out.

    Iterative, so that deep nesting cannot exhaust the stack.
    """
    pending: list[tuple[Path, Any]] = [(base, value)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, str):
            if node:
                yield path, node
        elif isinstance(node, dict):
            pending.extend(((*path, key), item) for key, item in reversed(node.items()) if key not in skip)
        elif isinstance(node, list):
            pending.extend(((*path, index), node[index]) for index in range(len(node) - 1, -1, -1))
